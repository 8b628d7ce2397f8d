"""A certificate authority of our own, made with openssl, and peers that it vouches for."""
import ssl
import subprocess

from support.peers import ACCEPTED, Peer

CONFIG = """
[ca]
default_ca = own
[own]
database = index
new_certs_dir = .
serial = serial
default_md = sha256
policy = any
x509_extensions = host
[any]
commonName = supplied
[req]
distinguished_name = name
[name]
[authority]
basicConstraints = critical, CA:TRUE
subjectKeyIdentifier = hash
keyUsage = critical, keyCertSign, cRLSign
[host]
subjectAltName = IP:127.0.0.1
authorityKeyIdentifier = keyid
[other]
authorityKeyIdentifier = keyid
subjectAltName = DNS:other.example
[zoned]
authorityKeyIdentifier = keyid
subjectAltName = IP:fe80::1
[named]
authorityKeyIdentifier = keyid
subjectAltName = DNS:good.example
"""
DATES = {"good": ("20200101000000Z", "20450101000000Z", "host"),
         "other": ("20200101000000Z", "20450101000000Z", "other"),
         "named": ("20200101000000Z", "20450101000000Z", "named"),
         "zoned": ("20200101000000Z", "20450101000000Z", "zoned"),
         "expired": ("20200101000000Z", "20210101000000Z", "host"),
         "future": ("20440101000000Z", "20450101000000Z", "host")}


def openssl(folder, *words):
    """Run a command of openssl in folder; it has to be content."""
    subprocess.run(["openssl", *words], cwd=str(folder), check=True, capture_output=True)


def make_authority(folder):
    """Fill folder with ca.pem, and for each of DATES a certificate and key in one file."""
    (folder / "config").write_text(CONFIG)
    (folder / "index").write_text("")
    (folder / "index.attr").write_text("unique_subject = no\n")
    (folder / "serial").write_text("01\n")
    openssl(folder, "req", "-x509", "-config", "config", "-extensions", "authority",
            "-newkey", "rsa:2048", "-nodes", "-keyout", "ca.key", "-out", "ca.pem", "-days",
            "9000", "-subj", "/CN=authority")
    openssl(folder, "req", "-config", "config", "-newkey", "rsa:2048", "-nodes", "-keyout",
            "key", "-out", "request", "-subj", "/CN=127.0.0.1")
    for name, (start, end, extensions) in DATES.items():
        openssl(folder, "ca", "-batch", "-config", "config", "-cert", "ca.pem", "-keyfile",
                "ca.key", "-startdate", start, "-enddate", end, "-extensions", extensions,
                "-in", "request", "-out", "certificate", "-notext")
        (folder / name).write_text((folder / "certificate").read_text()
                                   + (folder / "key").read_text())


def trusting(authority):
    """Return the variables with which a process trusts this authority alone."""
    return {"SSL_CERT_FILE": str(authority / "ca.pem")}


def server_side(authority, name):
    """Return a wrap of a Peer that shows the certificate of this name."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(str(authority / name))
    return lambda connection: context.wrap_socket(connection, server_side=True)


def tls_peer(authority, name, *scripts):
    """Return a Peer with this certificate; it accepts, unless there are other scripts."""
    return Peer(*scripts or (ACCEPTED,), wrap=server_side(authority, name))
