"""Tests of rabbitish.session: conversations with the Session class itself, without sockets and in virtual time."""
