"""A headless Chromium, driven over the DevTools protocol through a pair of pipes: no port, no library, one tab.

Protocol: https://chromedevtools.github.io/devtools-protocol/. With --remote-debugging-pipe the browser reads commands
from descriptor 3 and writes answers and events to 4, each a JSON object that ends with a zero byte.
"""

import base64
import itertools
import json
import os
import queue
import shutil
import subprocess
import sys
import tempfile
import threading
import time

COMMANDS = ("chromium", "chromium-browser", "google-chrome")
WAIT_S = 20
_FLAGS = (
    "--headless=new", "--no-sandbox", "--remote-debugging-pipe", "--disable-gpu", "--disable-dev-shm-usage",
    "--no-first-run", "--no-default-browser-check", "--disable-extensions", "--disable-background-networking",
    "--disable-component-update", "--disable-sync", "--disable-default-apps", "--mute-audio", "--hide-scrollbars",
    "--force-color-profile=srgb", "--window-size=1280,900",
)  # fmt: skip
_PIPES = (
    "import os, sys; os.dup2(int(sys.argv[1]), 3); os.dup2(int(sys.argv[2]), 4); os.execvp(sys.argv[3], sys.argv[3:])"
)
_KEYS = {
    "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40, "Enter": 13, "Escape": 27, "Tab": 9,
    "PageDown": 34,
}  # fmt: skip


class Failed(Exception):
    """The browser refused a command, or a script in the page threw."""


def command():
    """Return the browser's command, or None."""
    return next((found for name in COMMANDS if (found := shutil.which(name))), None)


class Browser:
    """One browser with one tab. Use as a context; only the thread that made it calls it.

    errors: messages of the console and exceptions; requests: addresses that were asked for; both since the last go().
    """

    def __init__(self, zone="UTC"):
        self._folder = tempfile.TemporaryDirectory(prefix="datacat-browser-")
        theirs_in, ours_out = os.pipe()
        ours_in, theirs_out = os.pipe()
        environ = {**os.environ, "TZ": zone, "HOME": self._folder.name}
        self._process = subprocess.Popen(
            [sys.executable, "-c", _PIPES, str(theirs_in), str(theirs_out), command(), *_FLAGS,
             f"--user-data-dir={self._folder.name}/profile", "about:blank"],
            pass_fds=(theirs_in, theirs_out), env=environ, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
            start_new_session=True,
        )  # fmt: skip
        os.close(theirs_in)
        os.close(theirs_out)
        self._out, self._in = os.fdopen(ours_out, "wb", buffering=0), os.fdopen(ours_in, "rb", buffering=0)
        self._messages = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()
        self._numbers = itertools.count(1)
        self._session = None
        self.errors, self.requests, self._events = [], [], []
        self.origin = ""
        tabs = self.call("Target.getTargets")["targetInfos"]
        tab = next(tab["targetId"] for tab in tabs if tab["type"] == "page")
        self._session = self.call("Target.attachToTarget", targetId=tab, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.close()

    def close(self):
        """End the browser and everything that it started."""
        try:
            self._session = None
            self.call("Browser.close")
            self._process.wait(WAIT_S)
        except (Failed, OSError, TimeoutError, subprocess.TimeoutExpired):
            self._process.kill()
            self._process.wait()
        self._out.close()
        self._reader.join(WAIT_S)
        self._in.close()
        shutil.rmtree(self._folder.name, ignore_errors=True)
        self._folder.cleanup()

    def call(self, method, **parameters):
        """Send a command and return its result. Raises: Failed, TimeoutError."""
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        self._out.write(json.dumps(message).encode() + b"\0")
        deadline = time.monotonic() + WAIT_S
        while True:
            told = self._next(deadline, method)
            if told.get("id") == number:
                if "error" in told:
                    raise Failed(f"{method}: {told['error']['message']}")
                return told["result"]

    def run(self, script):
        """Return the value of an expression in the page; a promise is waited for. Raises: Failed."""
        # Names of one script must not be in the way of the next one.
        script = f"{{{script}}}" if script.startswith("const ") else script
        told = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in told:
            details = told["exceptionDetails"]
            raise Failed(details.get("exception", {}).get("description") or details["text"])
        return told["result"].get("value")

    def until(self, script, what="", wait_s=WAIT_S):
        """Wait until an expression is true and return its value; a page that is about to go is asked again."""
        deadline = time.monotonic() + wait_s
        while True:
            try:
                if found := self.run(script):
                    return found
            except Failed as error:
                if "context" not in str(error).lower() and "navigat" not in str(error).lower():
                    raise
            if time.monotonic() > deadline:
                raise AssertionError(f"not so after {wait_s} s: {what or script}")
            self._pause(0.02)

    def go(self, url):
        """Open an address and wait until its scripts have run."""
        self.errors.clear()
        self.requests.clear()
        self.leaving(lambda: self.call("Page.navigate", url=url))

    def settled(self):
        """Wait until a page is loaded; where there is a time axis, until it is drawn."""
        self.until(
            "document.readyState === 'complete' && (!document.querySelector('#axis') || "
            "'ready' in document.querySelector('#axis').dataset)",
            "the page is loaded",
        )

    def follow(self, script):
        """Run a script that leaves the page and wait for the next one."""
        self.leaving(lambda: self.run(script))

    def leaving(self, act):
        """Do what leaves the page and wait for the next one; one that comes back from memory has another number."""
        number = next(self._numbers)
        self.run(f"window.leaving = {number}")
        act()
        self.until(f"window.leaving !== {number}", "another page is shown")
        self.settled()

    def click(self, selector):
        """Press the middle of an element with the mouse."""
        x, y = self.middle(selector)
        self.mouse("mousePressed", x, y)
        self.mouse("mouseReleased", x, y)

    def middle(self, selector):
        """Return where the middle of an element is in the window, after it was scrolled into sight."""
        box = self.run(
            f"(() => {{ const node = document.querySelector({json.dumps(selector)}); node.scrollIntoView({{block: 'center'}});"
            " const box = node.getBoundingClientRect(); return [box.x + box.width / 2, box.y + box.height / 2]; })()"
        )
        return box[0], box[1]

    def mouse(self, kind, x, y):
        """Send one event of the mouse with its left button."""
        pressed = {"button": "left", "clickCount": 1} if kind != "mouseMoved" else {"button": "left", "buttons": 1}
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **pressed)

    def drag(self, x, y, to_x):
        """Drag along a line, as a hand does, in steps."""
        self.mouse("mousePressed", x, y)
        for step in range(1, 5):
            self.mouse("mouseMoved", x + (to_x - x) * step / 4, y)
        self.mouse("mouseReleased", to_x, y)

    def key(self, name):
        """Press a key: a letter, or a name of DOM."""
        code = _KEYS.get(name)
        text = {"Enter": "\r"}.get(name) or (None if code else name)
        told = {"key": name, "windowsVirtualKeyCode": code or ord(name.upper())}
        self.call("Input.dispatchKeyEvent", type="keyDown", **told, **({"text": text} if text else {}))
        self.call("Input.dispatchKeyEvent", type="keyUp", **told)

    def type(self, text):
        """Put a text where the focus is."""
        self.call("Input.insertText", text=text)

    def look(self, *, dark=False, width=1280, height=900, reduced=False, media=""):
        """Set the colour scheme and the size of the window."""
        motion = "reduce" if reduced else "no-preference"
        features = [{"name": "prefers-color-scheme", "value": "dark" if dark else "light"},
                    {"name": "prefers-reduced-motion", "value": motion}]  # fmt: skip
        self.call("Emulation.setEmulatedMedia", media=media, features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def picture(self, *, whole=True):
        """Return the page as PNG, all of it or what the window shows."""
        clip = {}
        if whole:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            clip = {"clip": {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}}
        told = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole, **clip)
        return base64.b64decode(told["data"])

    def offline(self, is_so):
        """Take the network away, or give it back."""
        self.call(
            "Network.emulateNetworkConditions", offline=is_so, latency=0, downloadThroughput=-1, uploadThroughput=-1
        )

    def _pause(self, seconds):
        """Note what the page tells meanwhile."""
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            try:
                self._note(self._messages.get(timeout=max(0, deadline - time.monotonic())))
            except queue.Empty:
                return

    def _next(self, deadline, what):
        try:
            told = self._messages.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            raise TimeoutError(f"the browser did not answer {what}") from None
        if told is None:
            raise Failed("the browser has ended")
        self._note(told)
        return told

    def _note(self, told):
        about = told and told.get("params", {})
        match told and told.get("method"):
            case "Network.requestWillBeSent":
                self.requests.append(about["request"]["url"])
            case "Runtime.exceptionThrown":
                details = about["exceptionDetails"]
                self.errors.append(details.get("exception", {}).get("description") or details["text"])
            case "Log.entryAdded" if about["entry"]["level"] in ("error", "warning"):
                self.errors.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
            case "Runtime.consoleAPICalled" if about["type"] in ("error", "warning", "assert"):
                self.errors.append(str([item.get("value") for item in about["args"]]))

    def _read(self):
        waiting = b""
        while data := self._in.read(1 << 16):
            *whole, waiting = (waiting + data).split(b"\0")
            for message in whole:
                self._messages.put(json.loads(message))
        self._messages.put(None)
