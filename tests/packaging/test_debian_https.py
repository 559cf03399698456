"""Keys and HTTPS under the hardened unit of the package, on a booted Debian."""

import json
import shutil

import pytest
from certs import make_cert
from helpers import eventually

pytestmark = [
    pytest.mark.timeout(240),
    pytest.mark.skipif(not shutil.which("openssl"), reason="capability: there is no openssl to make keys with"),
]

ASK = """
import json, ssl, sys, urllib.request
context = ssl.create_default_context(cafile=sys.argv[1])
request = urllib.request.Request("https://localhost:8080" + sys.argv[2], headers={"X-Api-Key": sys.argv[3]})
with urllib.request.urlopen(request, context=context, timeout=10) as answer:
    print(json.dumps([answer.status, answer.read().decode()]))
"""


def ask(machine, authority, path, key=""):
    """GET a path over HTTPS; (status, body), or why not."""
    done = machine.run("python3", "-c", ASK, authority, path, key, check=False)
    return tuple(json.loads(done.stdout)) if done.returncode == 0 else done.stderr.strip().splitlines()[-1]


def test_credentials_of_the_unit_and_keys_of_the_command_work_under_the_sandbox(machine, tmp_path):
    private = machine.root / "etc/ssl/private"
    private.mkdir(parents=True, exist_ok=True)
    for name in ("one", "two"):
        make_cert(tmp_path, name)

    def install(name):
        for source, target in ((f"{name}.crt", "fullchain.pem"), (f"{name}.key", "privkey.pem")):
            shutil.copyfile(tmp_path / source, private / target)
            (private / target).chmod(0o600)  # root's alone: the service gets a copy of its own

    install("one")
    machine.drop_in(
        "[Service]\n"
        "WatchdogSec=5s\n"
        "LoadCredential=tls.crt:/etc/ssl/private/fullchain.pem\n"
        "LoadCredential=tls.key:/etc/ssl/private/privkey.pem\n"
        "Environment=DATACAT_TLS_CERT=%d/tls.crt DATACAT_TLS_KEY=%d/tls.key\n"
    )
    machine.run("systemctl", "restart", "datacat-server")
    before = machine.show("MainPID")
    assert ask(machine, "/etc/ssl/private/fullchain.pem", "/livez")[0] == 200
    text = machine.run("datacat", "keys", "create", "ops", "--role", "admin").stdout.strip()
    owner = (machine.root / "var/lib/datacat/keys.json").stat()
    assert owner.st_uid == (machine.root / "var/lib/datacat").stat().st_uid != 0
    assert owner.st_mode & 0o777 == 0o600
    eventually(lambda: "401" in str(ask(machine, "/etc/ssl/private/fullchain.pem", "/api/sessions")))
    assert ask(machine, "/etc/ssl/private/fullchain.pem", "/api/keys", text)[0] == 200
    assert "the watchdog does not beat" not in machine.journal()
    # Longer than the watchdog's time: it proves work through TLS.
    machine.run("sleep", "7")
    assert machine.show("MainPID") == before
    install("two")
    machine.run("systemctl", "restart", "datacat-server")
    assert ask(machine, "/etc/ssl/private/fullchain.pem", "/api/keys", text)[0] == 200


def test_files_that_a_renewal_copies_are_taken_by_a_reload(machine, tmp_path):
    for name in ("one", "two"):
        make_cert(tmp_path, name)

    def install(name):
        for source, target in ((f"{name}.crt", "fullchain.pem"), (f"{name}.key", "privkey.pem")):
            shutil.copyfile(tmp_path / source, machine.root / "srv" / target)
        machine.run("install", "-d", "-m", "750", "-g", "datacat", "/etc/datacat/tls")
        files = ("/srv/fullchain.pem", "/srv/privkey.pem")
        machine.run("install", "-m", "640", "-g", "datacat", *files, "/etc/datacat/tls/")

    install("one")
    machine.drop_in(
        "[Service]\nEnvironment=DATACAT_TLS_CERT=/etc/datacat/tls/fullchain.pem "
        "DATACAT_TLS_KEY=/etc/datacat/tls/privkey.pem\n"
    )
    machine.run("systemctl", "restart", "datacat-server")
    before = machine.show("MainPID")
    shutil.copyfile(tmp_path / "one.crt", machine.root / "srv/one.pem")
    shutil.copyfile(tmp_path / "two.crt", machine.root / "srv/two.pem")
    assert ask(machine, "/srv/one.pem", "/livez")[0] == 200
    install("two")
    machine.run("systemctl", "reload", "datacat-server")
    assert ask(machine, "/srv/two.pem", "/livez")[0] == 200
    assert "CERTIFICATE_VERIFY_FAILED" in ask(machine, "/srv/one.pem", "/livez")
    assert machine.show("MainPID") == before


def test_a_certificate_that_cannot_be_read_fails_with_one_line_and_is_not_tried_again(machine):
    machine.drop_in("[Service]\nEnvironment=DATACAT_TLS_CERT=/etc/none.crt DATACAT_TLS_KEY=/etc/none.key\n")
    machine.run("systemctl", "restart", "datacat-server", check=False)
    eventually(lambda: machine.show("ActiveState") == "failed", 20)
    assert machine.show("ExecMainStatus") == "78"
    assert machine.journal().count("cannot read /etc/none.crt for HTTPS: No such file or directory") == 1
