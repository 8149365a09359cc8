"""Which user a client's certificate stands for: RabbitMQ's ssl_cert_login_from, in RabbitMQ's spelling.

Works on the certificate as the standard library's ssl takes it apart, after it has been verified. The distinguished
name is written as RFC 4514 says, the last part first, and escaped exactly as RabbitMQ does: a user's name must be the
same here and there.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from rabbitish.config import Settings

# RabbitMQ's names of the attributes that it names, by OpenSSL's.
_SHORT = {
    "surname": "SN",
    "givenName": "GIVENNAME",
    "initials": "INITIALS",
    "generationQualifier": "GENERATIONQUALIFIER",
    "commonName": "CN",
    "localityName": "L",
    "stateOrProvinceName": "ST",
    "organizationName": "O",
    "organizationalUnitName": "OU",
    "title": "TITLE",
    "countryName": "C",
    "serialNumber": "SERIALNUMBER",
    "pseudonym": "PSEUDONYM",
    "domainComponent": "DC",
    "emailAddress": "EMAILADDRESS",
    "userId": "UID",
}
# It writes the others as numbers, where OpenSSL knows words for them; these are the ones that are met.
_NUMBERS = {
    "streetAddress": "2.5.4.9",
    "description": "2.5.4.13",
    "businessCategory": "2.5.4.15",
    "postalAddress": "2.5.4.16",
    "postalCode": "2.5.4.17",
    "telephoneNumber": "2.5.4.20",
    "name": "2.5.4.41",
    "x500UniqueIdentifier": "2.5.4.45",
    "dnQualifier": "2.5.4.46",
    "organizationIdentifier": "2.5.4.97",
    "jurisdictionLocalityName": "1.3.6.1.4.1.311.60.2.1.1",
    "jurisdictionStateOrProvinceName": "1.3.6.1.4.1.311.60.2.1.2",
    "jurisdictionCountryName": "1.3.6.1.4.1.311.60.2.1.3",
}
_ATTRIBUTES = _SHORT | _NUMBERS
_SAN_TYPES = {"dns": "DNS", "ip": "IP Address", "email": "email", "uri": "URI"}
_SPECIAL = frozenset('"+,;<>\\')


def peer_name(certificate: Mapping[str, Any] | None, settings: Settings) -> str:
    """The name of the user that a certificate stands for; empty when there is none in it, or no certificate."""
    if not certificate:
        return ""
    if settings.ssl_cert_login_from == "distinguished_name":
        return distinguished_name(certificate)
    if settings.ssl_cert_login_from == "common_name":
        names = (attribute for rdn in certificate.get("subject", ()) for attribute in rdn)
        return ",".join(value for kind, value in names if kind == "commonName")  # RabbitMQ's answer to several
    wanted = _SAN_TYPES[settings.ssl_cert_login_san_type]
    alternatives = [value for kind, value in certificate.get("subjectAltName", ()) if kind == wanted]
    index = settings.ssl_cert_login_san_index
    return alternatives[index] if index < len(alternatives) else ""


def distinguished_name(certificate: Mapping[str, Any], whose: str = "subject") -> str:
    """The subject, or the issuer, as RabbitMQ writes it: "CN=me,O=Example,C=DE"."""
    parts = ["+".join(_attribute(*attribute) for attribute in rdn) for rdn in certificate.get(whose, ())]
    return ",".join(reversed(parts))


def _attribute(kind: str, value: str) -> str:
    return f"{_ATTRIBUTES.get(kind, kind)}={_escaped(value)}"


def _escaped(value: str) -> str:
    """As RFC 4514 says, and whatever is not printable ASCII as the bytes of its UTF-8."""
    if not value:
        return ""
    last = len(value) - 1
    escaped = []
    for place, char in enumerate(value):
        at_an_end = (place == 0 and char in " #") or (place == last and char == " ")
        if at_an_end or char in _SPECIAL:
            escaped.append(f"\\{char}")
        elif " " <= char < "~":
            escaped.append(char)
        else:
            escaped += [f"\\{byte:02X}" for byte in char.encode("utf-8", "surrogateescape")]
    return "".join(escaped)
