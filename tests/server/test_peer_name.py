"""Whom a client's certificate stands for. Expected are the names that RabbitMQ 3.10's rabbit_cert_info makes of it."""

from __future__ import annotations

import ipaddress
import ssl
from typing import Any

import pytest
import trustme
from cryptography import x509
from cryptography.x509.oid import NameOID, ObjectIdentifier

from rabbitish.config import Settings
from rabbitish.server.peer_name import distinguished_name, peer_name

OF_HIM = {
    "subject": (
        (("countryName", "DE"),),
        (("organizationName", "Example"),),
        (("commonName", "me"),),
        (("commonName", "myself, I"),),
    ),
    "subjectAltName": (
        ("DNS", "me.example"),
        ("email", "me@example"),
        ("DNS", "also.me"),
        ("URI", "spiffe://example/me"),
        ("IP Address", "127.0.0.1"),
    ),
}


@pytest.mark.parametrize(
    ("settings", "name"),
    [
        ({}, "CN=myself\\, I,CN=me,O=Example,C=DE"),
        ({"ssl_cert_login_from": "common_name"}, "me,myself, I"),
        ({"ssl_cert_login_from": "subject_alternative_name"}, "me.example"),
        ({"ssl_cert_login_from": "subject_alt_name", "ssl_cert_login_san_index": 1}, "also.me"),
        ({"ssl_cert_login_from": "subject_alt_name", "ssl_cert_login_san_index": 2}, ""),
        ({"ssl_cert_login_from": "subject_alt_name", "ssl_cert_login_san_type": "email"}, "me@example"),
        ({"ssl_cert_login_from": "subject_alt_name", "ssl_cert_login_san_type": "uri"}, "spiffe://example/me"),
        ({"ssl_cert_login_from": "subject_alt_name", "ssl_cert_login_san_type": "ip"}, "127.0.0.1"),
    ],
)
def test_the_name_is_where_the_settings_say(settings: dict[str, Any], name: str) -> None:
    assert peer_name(OF_HIM, Settings(**settings)) == name
    for nothing in (None, {}, {"subject": ()}):
        assert peer_name(nothing, Settings(**settings)) == ""


@pytest.mark.parametrize(
    ("value", "written"),
    [
        ("a b=c|}", "a b=c|}"),
        (' #lead;<>\\"+,', '\\ #lead\\;\\<\\>\\\\\\"\\+\\,'),
        ("#x ", "\\#x\\ "),
        (" ", "\\ "),
        ("", ""),
        ("~\t\n\0\x7f", "\\7E\\09\\0A\\00\\7F"),
        ("grüße \N{RABBIT FACE}", "gr\\C3\\BC\\C3\\9Fe \\F0\\9F\\90\\B0"),
    ],
)
def test_escapes(value: str, written: str) -> None:
    assert distinguished_name({"subject": ((("commonName", value),),)}) == f"CN={written}"


def name(*rdns: list[tuple[ObjectIdentifier, str]]) -> x509.Name:
    return x509.Name(
        x509.RelativeDistinguishedName([x509.NameAttribute(*attribute) for attribute in rdn]) for rdn in rdns
    )


@pytest.mark.parametrize(
    ("subject", "written"),
    [
        (
            name([(NameOID.COMMON_NAME, "a"), (NameOID.USER_ID, "b"), (NameOID.ORGANIZATION_NAME, "c")]),
            "CN=a+O=c+UID=b",
        ),
        (
            name(
                [(NameOID.SURNAME, "s")],
                [(NameOID.GIVEN_NAME, "g")],
                [(NameOID.GENERATION_QUALIFIER, "gq")],
                [(NameOID.LOCALITY_NAME, "l")],
                [(NameOID.STATE_OR_PROVINCE_NAME, "st")],
                [(NameOID.ORGANIZATIONAL_UNIT_NAME, "ou")],
                [(NameOID.TITLE, "t")],
                [(NameOID.SERIAL_NUMBER, "12")],
                [(NameOID.PSEUDONYM, "ps")],
                [(NameOID.DOMAIN_COMPONENT, "dc")],
                [(NameOID.EMAIL_ADDRESS, "a@b")],
            ),
            "EMAILADDRESS=a@b,DC=dc,PSEUDONYM=ps,SERIALNUMBER=12,TITLE=t,OU=ou,ST=st,L=l,GENERATIONQUALIFIER=gq,"
            "GIVENNAME=g,SN=s",
        ),
        (
            name(
                [(NameOID.STREET_ADDRESS, "s")],
                [(NameOID.POSTAL_CODE, "1")],
                [(NameOID.BUSINESS_CATEGORY, "b")],
                [(NameOID.POSTAL_ADDRESS, "pa")],
                [(NameOID.DN_QUALIFIER, "q")],
                [(NameOID.X500_UNIQUE_IDENTIFIER, "u")],
                [(NameOID.ORGANIZATION_IDENTIFIER, "oi")],
                [(ObjectIdentifier("2.5.4.13"), "d")],
                [(ObjectIdentifier("2.5.4.20"), "t")],
                [(ObjectIdentifier("2.5.4.41"), "n")],
                [(ObjectIdentifier("1.3.6.1.4.1.99999.1"), "priv")],
                [(NameOID.JURISDICTION_COUNTRY_NAME, "DE")],
            ),
            "1.3.6.1.4.1.311.60.2.1.3=DE,1.3.6.1.4.1.99999.1=priv,2.5.4.41=n,2.5.4.20=t,2.5.4.13=d,2.5.4.97=oi,"
            "2.5.4.45=u,2.5.4.46=q,2.5.4.16=pa,2.5.4.15=b,2.5.4.17=1,2.5.4.9=s",
        ),
    ],
    ids=["several in one", "named", "numbered"],
)
def test_attributes_have_rabbitmqs_names(subject: x509.Name, written: str) -> None:
    """As real certificates come out of OpenSSL."""
    assert distinguished_name(as_openssl_has_it(subject)) == written


def as_openssl_has_it(subject: x509.Name) -> Any:
    """What getpeercert() makes of a certificate with this subject."""
    import datetime

    from cryptography.hazmat.primitives import hashes, serialization

    ca = trustme.CA()
    key = serialization.load_pem_private_key(ca.private_key_pem.bytes(), None)
    issuer = x509.load_pem_x509_certificate(ca.cert_pem.bytes()).subject
    now = datetime.datetime.now(datetime.UTC)
    addresses = x509.SubjectAlternativeName([x509.IPAddress(ipaddress.ip_address("127.0.0.1"))])
    builder = x509.CertificateBuilder(issuer, subject, key.public_key(), 1, now, now + datetime.timedelta(days=1))  # type: ignore[arg-type]
    cert = builder.add_extension(addresses, critical=False).sign(key, hashes.SHA256())  # type: ignore[arg-type]
    server, client = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER), ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    leaf = trustme.LeafCert(ca.private_key_pem.bytes(), cert.public_bytes(serialization.Encoding.PEM), [])
    leaf.configure_cert(server)
    ca.configure_trust(client)
    to_server, to_client = ssl.MemoryBIO(), ssl.MemoryBIO()
    them = client.wrap_bio(to_client, to_server, server_hostname="127.0.0.1")
    us = server.wrap_bio(to_server, to_client, server_side=True)
    for side in (them, us, them):
        try:
            side.do_handshake()
        except ssl.SSLWantReadError:
            continue
    return them.getpeercert()
