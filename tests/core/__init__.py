"""The core's rules, in virtual time and without wire or sockets; fakes.py is what stands for sessions here."""
