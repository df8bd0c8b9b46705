"""Drives a headless Chromium through the page of `wavemill serve`, by its debugging pipe. Standard library alone.

usage: serve_page.py CHROMIUM PROFILE_FOLDER URL [--shots FOLDER] FILE…

Chooses all files at once in the page's file input, waits until each has an answer or a message, and prints one JSON
object: `songs` (for each file its name, state and whether it failed), `articles`, `charts`, `console` (errors and
warnings), `requests` (addresses outside of URL), `focused` (what the first Tab reaches) and `clear` (whether the button
that removes all answers is visible before and after there are any). With --shots, pictures of the
page: light, dark, and on a phone.
"""

import argparse
import base64
import json
import os
import subprocess
import sys
import time

# Timeout for all songs, on a busy machine.
WAIT_S = 300

STATE = """({
  songs: [...document.querySelectorAll('#songs li')].map((item) => ({
    name: item.querySelector('.name').textContent,
    state: item.querySelector('.name').nextElementSibling.textContent,
    done: !item.querySelector('button'),
    failed: !!item.querySelector('.failed'),
  })),
  articles: [...document.querySelectorAll('article h3')].map((title) => title.textContent),
  charts: document.querySelectorAll('article svg[role=img]').length,
  said: document.getElementById('said').textContent,
  overflows: document.documentElement.scrollWidth > document.documentElement.clientWidth,
})"""

CLEAR = "document.getElementById('clear').getClientRects().length > 0"


class Browser:
    def __init__(self, program, profile):
        to_read, self.to = os.pipe()
        self.come, come_write = os.pipe()

        def pipes():
            # Chromium reads from 3 and writes to 4. Both are duplicated to higher numbers first, so that neither
            # overwrites the other.
            read, write = os.dup2(to_read, 103), os.dup2(come_write, 104)
            os.dup2(read, 3)
            os.dup2(write, 4)

        words = ["--headless=new", "--no-sandbox", "--disable-gpu", "--no-first-run", "--remote-debugging-pipe",
                 "--disable-background-networking", "--disable-component-update", "--disable-sync",
                 "--disable-extensions", "--user-data-dir=" + profile]
        self.process = subprocess.Popen([program, *words], close_fds=False, preexec_fn=pipes,
                                        stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        os.close(to_read)
        os.close(come_write)
        self.number, self.rest, self.events = 0, b"", []
        self.session = None

    def message(self):
        while b"\0" not in self.rest:
            part = os.read(self.come, 1 << 20)
            if not part:
                raise SystemExit("the browser ended")
            self.rest += part
        line, self.rest = self.rest.split(b"\0", 1)
        return json.loads(line)

    def ask(self, method, **params):
        self.number += 1
        words = {"id": self.number, "method": method, "params": params}
        if self.session:
            words["sessionId"] = self.session
        data = json.dumps(words).encode() + b"\0"
        while data:
            data = data[os.write(self.to, data):]
        while True:
            message = self.message()
            if message.get("id") == self.number:
                if "error" in message:
                    raise SystemExit(f"{method}: {message['error']}")
                return message["result"]
            self.events.append(message)

    def value(self, expression):
        answer = self.ask("Runtime.evaluate", expression=expression, returnByValue=True)
        if "exceptionDetails" in answer:
            raise SystemExit(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def shot(self, path, width, height, scheme, whole):
        is_phone = width < 600
        self.ask("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=is_phone)
        self.ask("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": scheme}])
        overflows = self.value(STATE)["overflows"]
        picture = self.ask("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        with open(path, "wb") as file:
            file.write(base64.b64decode(picture["data"]))
        return overflows


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("chromium")
    parser.add_argument("profile")
    parser.add_argument("url")
    parser.add_argument("--shots")
    parser.add_argument("files", nargs="+")
    options = parser.parse_args()

    browser = Browser(options.chromium, options.profile)
    try:
        target = browser.ask("Target.createTarget", url="about:blank")["targetId"]
        browser.session = browser.ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ["Page", "Runtime", "Log", "Network", "DOM"]:
            browser.ask(domain + ".enable")
        browser.ask("Page.navigate", url=options.url)
        end = time.monotonic() + WAIT_S
        while not browser.value("document.readyState === 'complete' && !!document.getElementById('files')"):
            if time.monotonic() > end:
                raise SystemExit("the page does not come")
            time.sleep(0.05)

        # The first press of the Tab key focuses the file input.
        for kind in ["keyDown", "keyUp"]:
            browser.ask("Input.dispatchKeyEvent", type=kind, key="Tab", code="Tab", windowsVirtualKeyCode=9)
        focused = browser.value("document.activeElement.id")
        clear = [browser.value(CLEAR)]

        document = browser.ask("DOM.getDocument")["root"]["nodeId"]
        node = browser.ask("DOM.querySelector", nodeId=document, selector="#files")["nodeId"]
        browser.ask("DOM.setFileInputFiles", nodeId=node, files=[os.path.abspath(path) for path in options.files])
        while True:
            state = browser.value(STATE)
            if len(state["songs"]) == len(options.files) and all(song["done"] for song in state["songs"]):
                break
            if time.monotonic() > end:
                raise SystemExit(f"not all songs are answered: {json.dumps(state)}")
            time.sleep(0.05)

        clear.append(browser.value(CLEAR))

        overflows = []
        if options.shots:
            for name, width, height, scheme in [("light", 1100, 1000, "light"), ("dark", 1100, 1000, "dark"),
                                                ("phone", 390, 1600, "dark")]:
                path = os.path.join(options.shots, f"serve-{name}.png")
                overflows.append(browser.shot(path, width, height, scheme, False))

        console, requests = [], []
        for event in browser.events:
            method, params = event.get("method"), event.get("params", {})
            if method == "Runtime.exceptionThrown":
                console.append(str(params["exceptionDetails"]))
            elif method == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning"):
                console.append(str(params["args"]))
            elif method == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                console.append(params["entry"]["text"] + " " + params["entry"].get("url", ""))
            elif method == "Network.requestWillBeSent":
                address = params["request"]["url"]
                if not address.startswith(options.url) and not address.startswith("data:"):
                    requests.append(address)
        state.update(console=console, requests=requests, focused=focused, overflows=overflows, clear=clear)
        print(json.dumps(state))
    finally:
        browser.process.kill()
        browser.process.wait()


if __name__ == "__main__":
    sys.exit(main())
