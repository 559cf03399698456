"""Certificates for tests of HTTPS."""

import subprocess


def make_cert(folder, name, *more):
    """Make a certificate for localhost that signs itself; (certificate, key)."""
    cert, key = folder / f"{name}.crt", folder / f"{name}.key"
    command = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    command += ["-days", "3", "-subj", f"/CN={name}", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1"]
    subprocess.run([*command, "-keyout", key, "-out", cert, *more], check=True, capture_output=True, timeout=60)
    return cert, key
