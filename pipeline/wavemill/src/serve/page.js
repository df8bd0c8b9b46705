"use strict";
// Uploads songs, two at a time, shows their progress and inserts the responses into the page. The server has already
// escaped the HTML that it sends. Nothing is stored after the tab is closed.
(() => {
  const AT_ONCE = 2;
  const TRIES = 60;
  const get = (id) => document.getElementById(id);
  const waiting = [];
  let running = 0;
  let number = 0;

  const say = (text) => { get("said").textContent = text; };

  const element = (name, text, className) => {
    const made = document.createElement(name);
    if (text) made.textContent = text;
    if (className) made.className = className;
    return made;
  };

  function add(file) {
    const item = element("li");
    const bar = element("progress");
    bar.max = 1;
    bar.value = 0;
    bar.setAttribute("aria-label", "Sending " + file.name);
    const state = element("span", "waiting");
    const stop = element("button", "Stop");
    stop.type = "button";
    stop.setAttribute("aria-label", "Stop " + file.name);
    item.append(element("span", file.name, "name"), bar, state, stop);
    get("songs").prepend(item);
    const song = { file, item, bar, state, stop, tries: 0, stopped: false, request: null };
    stop.addEventListener("click", () => {
      song.stopped = true;
      if (song.request) song.request.abort();
      else fail(song, "stopped");
    });
    waiting.push(song);
  }

  function next() {
    while (running < AT_ONCE && waiting.length > 0) {
      const song = waiting.shift();
      if (song.stopped) continue;
      running += 1;
      send(song);
    }
  }

  function end() {
    running -= 1;
    next();
  }

  function fail(song, words) {
    song.bar.remove();
    song.stop.remove();
    song.state.textContent = words;
    song.state.className = "failed";
    say(words.startsWith(song.file.name) ? words : song.file.name + ": " + words);
  }

  function send(song) {
    const request = new XMLHttpRequest();
    song.request = request;
    request.open("POST", "/api/predict?html=true&name=" + encodeURIComponent(song.file.name));
    request.setRequestHeader("Content-Type", "application/octet-stream");
    request.responseType = "json";
    song.state.textContent = "sending";
    request.upload.addEventListener("progress", (event) => {
      if (event.lengthComputable) song.bar.value = event.loaded / event.total;
    });
    request.upload.addEventListener("load", () => {
      song.bar.removeAttribute("value");
      song.bar.setAttribute("aria-label", "Predicting " + song.file.name);
      song.state.textContent = "predicting";
    });
    request.addEventListener("load", () => {
      const said = request.response;
      if (request.status === 200 && said) {
        show(song, said);
      } else if (request.status === 503 && song.tries < TRIES) {
        // All places are taken: retry after the delay given by the server.
        song.tries += 1;
        song.request = null;
        song.bar.value = 0;
        song.state.textContent = "waiting: the server is busy";
        const seconds = Number(request.getResponseHeader("Retry-After")) || 1;
        setTimeout(() => { song.stopped ? end() : send(song); }, 1000 * seconds);
        return;
      } else {
        fail(song, (said && said.error) || "The server returned status " + request.status + ".");
      }
      end();
    });
    request.addEventListener("error", () => {
      fail(song, "The server cannot be reached, or it closed the connection.");
      end();
    });
    request.addEventListener("abort", () => {
      fail(song, "stopped");
      end();
    });
    request.send(song.file);
  }

  function show(song, said) {
    number += 1;
    const id = "answer-" + number;
    const article = element("article");
    article.id = id;
    article.setAttribute("aria-labelledby", id + "-title");
    const title = element("h3", said.file);
    title.id = id + "-title";
    title.tabIndex = -1;
    const length = Math.round(said.duration_s * 10) / 10;
    const models = Object.values(said.seconds.models).reduce((a, b) => a + b, 0);
    const times = [["decoding", said.seconds.decode], ["features", said.seconds.features], ["models", models]]
      .map(([name, seconds]) => name + " " + Math.round(seconds * 1000) + " ms").join(", ");
    article.append(title, element("p", length + " s of audio. Time: " + times + ".", "note"));
    const piece = document.createElement("template");
    piece.innerHTML = said.html;
    article.append(piece.content);
    get("answers").prepend(article);
    get("none").hidden = true;
    get("clear").hidden = false;

    song.bar.remove();
    song.stop.remove();
    const link = element("a", said.summary);
    link.href = "#" + id;
    song.state.replaceChildren(link);
    say(said.file + ": " + said.summary);
  }

  function take(files) {
    for (const file of files) add(file);
    next();
  }

  get("files").addEventListener("change", (event) => {
    take(event.target.files);
    // Reset the input, so that choosing the same file again fires another event.
    event.target.value = "";
  });
  document.addEventListener("dragover", (event) => {
    event.preventDefault();
    get("drop").classList.add("over");
  });
  document.addEventListener("dragleave", () => get("drop").classList.remove("over"));
  document.addEventListener("drop", (event) => {
    event.preventDefault();
    get("drop").classList.remove("over");
    if (event.dataTransfer) take(event.dataTransfer.files);
  });
  get("clear").addEventListener("click", () => {
    get("answers").replaceChildren();
    for (const item of [...get("songs").children]) {
      if (!item.querySelector("button")) item.remove();
    }
    get("none").hidden = false;
    get("clear").hidden = true;
    say("All predictions were cleared.");
    get("files").focus();
  });
})();
