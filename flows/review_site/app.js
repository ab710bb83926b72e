"use strict";
/* The page of `infinidub review serve`. Texts are only ever set as text, never as markup. */

const $ = (id) => document.getElementById(id);
const state = { which: null, page: null, current: null, timers: new Map(), saves: new Map() };

// -- asking ----------------------------------------------------------------------------------------------------------

async function ask(path, body) {
  const options = body === undefined ? {} : {
    method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify(body),
  };
  let answer;
  try {
    answer = await fetch(path, options);
  } catch {
    throw new Error("The page's server does not answer. Is `infinidub review serve` still running?");
  }
  const kind = answer.headers.get("Content-Type") || "";
  const found = kind.startsWith("application/json") ? await answer.json() : { error: await answer.text() };
  if (!answer.ok) throw new Error(found.error || answer.statusText);
  return found;
}

const mine = (more) => ({ episode: state.which.episode, language: state.which.language, ...more });

function say(words, wrong) {
  $("said").textContent = words;
  $("said").classList.toggle("wrong", Boolean(wrong));
  clearTimeout(say.timer);
  say.timer = setTimeout(() => { $("said").textContent = ""; }, wrong ? 12000 : 4000);
}

/** Run what a person asked for; what goes wrong is said, and nothing else changes. */
async function trying(what) {
  try {
    return await what();
  } catch (error) {
    say(error.message, true);
    return null;
  }
}

// -- showing ---------------------------------------------------------------------------------------------------------

const clock = (s) => {
  const whole = Math.floor(s), hours = Math.floor(whole / 3600);
  const rest = `${String(Math.floor(whole / 60) % 60).padStart(2, "0")}:${String(whole % 60).padStart(2, "0")}`;
  return `${hours ? `${hours}:` : ""}${rest}.${Math.floor((s - whole) * 10)}`;
};

function head(found) {
  const waits = found.state === "awaiting";
  const left = found.left_s === null ? "" : `, ${(found.left_s / 3600).toFixed(1)} h left${found.on_timeout === "approve" ? ", then it goes on by itself" : ""}`;
  const open = found.unapproved ? `${found.total - found.unapproved} of ${found.total} approved` : "all approved";
  $("state").textContent = `${waits ? `Awaiting review${left} · ` : ""}${open}` +
    `${found.changed ? ` · ${found.changed} changed` : ""}${found.running ? " · is being dubbed" : ""}` +
    `${found.failed ? " · dubbing failed, see review-run.log" : ""}`;
  $("done").value = found.total ? 1 - found.unapproved / found.total : 1;
  $("approve-all").disabled = !found.unapproved;
  $("run").hidden = waits || !found.changed;
}

function fill(item, line) {
  const part = (name) => item.querySelector(`.${name}`), area = item.querySelector("textarea");
  item.dataset.line = line.id;
  item.line = line;
  item.classList.toggle("approved", Boolean(line.approved || line.locked));
  item.classList.toggle("flagged", Boolean(line.flags.length || line.other_source) && !line.approved && !line.locked);
  item.setAttribute("aria-label", `${line.id}, ${line.speaker || "nobody"}`);
  part("id").textContent = line.id;
  part("time").textContent = `${clock(line.start)} – ${clock(line.end)}`;
  part("speaker").textContent = line.speaker;
  part("marks").textContent = line.locked ? `🔒 ${line.locked.who}` : line.approved ? `✓ ${line.approved.who}`
    : line.origin === "edit" ? "edited" : "";
  part("marks").classList.toggle("good", Boolean(line.locked || line.approved));
  part("source").textContent = line.source;
  if (document.activeElement !== area || area.value === item.shown) area.value = line.text;
  item.shown = line.text;
  area.readOnly = Boolean(line.locked);
  area.lang = state.which.language;
  area.setAttribute("aria-label", `${line.id} in ${state.which.language}${line.locked ? ", locked" : ""}`);
  grow(area);
  length(item, line.estimate);
  const notes = line.other_source ? ["the source changed since it was locked", ...line.flags] : line.flags;
  part("flags").replaceChildren(...notes.map((words) => made("li", words)));
  part("others").replaceChildren(...(line.locked ? [] : line.candidates).filter((text) => text !== line.text)
    .map((text) => {
      const button = made("button", text);
      button.type = "button";
      button.dir = "auto";
      button.addEventListener("click", () => { area.value = text; grow(area); save(item); });
      return button;
    }));
  part("play-dub").disabled = !line.spoken;
  part("play-dub").title = line.spoken ? (line.spoken.stale ? "as it was before the text changed" : "") : "not voiced yet";
  part("lock").textContent = line.locked ? "Unlock" : "Lock";
  part("lock").setAttribute("aria-pressed", String(Boolean(line.locked)));
  part("approve").textContent = line.approved || line.locked ? "Approved" : "Approve";
  part("approve").setAttribute("aria-pressed", String(Boolean(line.approved || line.locked)));
  part("approve").disabled = Boolean(line.locked);
}

function made(tag, text) {
  const element = document.createElement(tag);
  element.textContent = text;
  return element;
}

function grow(area) {
  area.style.height = "auto";
  area.style.height = `${area.scrollHeight + 2}px`;
}

/** The bar: the slot in grey, what the text would take dashed, what was voiced solid, what does not fit red. */
function length(item, estimate) {
  const line = item.line, slot = line.end - line.start, heard = line.spoken;
  const at = heard ? heard.start - line.start : 0, spoken = heard ? heard.length : 0;
  const room = Math.max(line.room, slot), full = Math.max(room, estimate, at + spoken, 0.5);
  const set = (name, from, to) => {
    const bar = item.querySelector(`.bar .${name}`);
    bar.style.left = `${(100 * from) / full}%`;
    bar.style.width = `${(100 * Math.max(0, to - from)) / full}%`;
  };
  set("planned", 0, slot);
  set("estimate", 0, estimate);
  set("spoken", at, at + spoken);
  const current = heard && !heard.stale, over = current ? heard.overflow : Math.max(0, estimate - room);
  const end = current ? at + spoken : estimate;
  set("over", end - over, end);
  const late = !current && estimate > room * 1.25, words = [`about ${estimate.toFixed(1)} s in ${slot.toFixed(1)} s`];
  if (room > slot + 0.05) words.push(`${room.toFixed(1)} s until the next line`);
  if (late) words.push("too long");
  if (heard) words.push(`${heard.stale ? "last voiced" : "voiced"} in ${spoken.toFixed(1)} s` +
    `${heard.stretch > 1.005 || heard.stretch < 0.995 ? `, stretched ${heard.stretch.toFixed(2)}` : ""}`);
  if (over > 0.05) words.push(`${over.toFixed(1)} s over`);
  const said = item.querySelector(".length");
  said.textContent = words.join(" · ");
  said.classList.toggle("late", late);
  item.querySelector(".bar").setAttribute("aria-label", `Timing: ${words.join(", ")}`);
}

async function load(wish, focus) {
  const asked = new URLSearchParams(mine({ show: $("show").value, ...wish }));
  const found = await trying(() => ask(`/api/lines?${asked}`));
  if (!found) return;
  state.page = found;
  head(found);
  const items = found.lines.map((line) => {
    const item = $("line").content.firstElementChild.cloneNode(true);
    item.dataset.line = line.id;
    return item;
  });
  $("lines").replaceChildren(...items);
  items.forEach((item, number) => fill(item, found.lines[number]));
  const last = found.offset + found.lines.length;
  $("place").textContent = found.shown ? `${found.offset + 1} – ${last} of ${found.shown}` : "no such lines";
  $("back").disabled = found.offset === 0;
  $("on").disabled = last >= found.shown;
  const chosen = focus === "last" ? items[items.length - 1] : (wish.at && item(wish.at)) || items[0];
  choose(chosen, focus !== "none");
  if (wish.at && !item(wish.at)) say(`${wish.at} is not shown here`, true);
}

const item = (id) => $("lines").querySelector(`[data-line="${CSS.escape(id)}"]`);

function choose(chosen, focus) {
  if (!chosen) return;
  for (const one of $("lines").children) {
    one.tabIndex = one === chosen ? 0 : -1;
    one.setAttribute("aria-current", String(one === chosen));
  }
  state.current = chosen;
  if (focus) {
    chosen.focus({ preventScroll: true });
    chosen.scrollIntoView({ block: "nearest" });
  }
}

/** Put an answer about one line in its place. */
function take(found, id) {
  head(found);
  const place = item(id);
  if (place && found.lines.length) fill(place, found.lines[0]);
  return found;
}

// -- doing -----------------------------------------------------------------------------------------------------------

/** Save a text that was changed; one after the other, so that none overtakes another. Says whether it is saved. */
function save(place) {
  const before = state.saves.get(place) || Promise.resolve(true);
  const now = before.then(async () => {
    const area = place.querySelector("textarea"), text = area.value, was = place.line.text, id = place.line.id;
    if (text === was || area.readOnly) return true;
    const done = await trying(async () => {
      const found = await ask("/api/edit", mine({ line: id, text, was }));
      take(found, id);
      return true;
    });
    if (done) say(`${id} saved`);
    return Boolean(done);
  });
  state.saves.set(place, now);
  return now;
}

async function approve(place) {
  if (!(await save(place))) return false;
  const id = place.line.id;
  if (place.line.approved || place.line.locked) return true;
  const found = await trying(async () => take(await ask("/api/approve", mine({ line: id })), id));
  if (found) say(`${id} approved${found.said ? `; ${found.said}` : ""}`);
  return Boolean(found);
}

async function lock(place) {
  if (!(await save(place))) return;
  const id = place.line.id;
  const found = await trying(async () => take(await ask("/api/lock", mine({ line: id })), id));
  if (found) say(`${id} ${found.lines[0].locked ? "locked" : "unlocked"}${found.said ? `; ${found.said}` : ""}`);
}

function play(place, what) {
  if (what === "dub" && !place.line.spoken) { say("This line was not voiced yet", true); return; }
  const asked = new URLSearchParams(mine({ line: place.line.id }));
  $("player").src = `/api/${what}?${asked}`;
  $("player").play().catch((error) => { if (error.name !== "AbortError") say(`Cannot be played: ${error.message}`, true); });
}

async function move(by) {
  const all = [...$("lines").children], at = all.indexOf(state.current) + by;
  if (at >= 0 && at < all.length) { choose(all[at], true); return; }
  const { offset, page, shown } = state.page;
  if (by > 0 && offset + all.length < shown) await load({ offset: offset + page }, "first");
  if (by < 0 && offset > 0) await load({ offset: offset - page }, "last");
}

async function nextOpen() {
  const all = [...$("lines").children];
  const found = all.slice(all.indexOf(state.current) + 1).find((one) => !one.line.approved && !one.line.locked);
  if (found) { choose(found, true); return; }
  const asked = new URLSearchParams(mine({ show: "open" }));
  const open = await trying(() => ask(`/api/lines?${asked}`));
  const id = open && open.lines.length ? (open.lines.find((one) => !item(one.id)) || open.lines[0]).id : null;
  if (id) await load({ at: id }, "first"); else say("All lines are approved");
}

// -- listening -------------------------------------------------------------------------------------------------------

$("lines").addEventListener("keydown", async (event) => {
  const place = event.target.closest("li[data-line]"), typing = event.target.tagName === "TEXTAREA";
  if (!place || event.isComposing) return;
  if (event.key === "Enter" && (event.ctrlKey || event.metaKey)) {
    event.preventDefault();
    if (await approve(place)) await move(1);
    return;
  }
  if (event.key === "Escape" && typing) {
    event.target.value = place.line.text;
    grow(event.target);
    length(place, place.line.estimate);
    place.focus();
    return;
  }
  if (event.key === "Enter" && typing) event.preventDefault();  // a line is one line
  if (typing || event.ctrlKey || event.metaKey || event.altKey) return;
  if (event.key === "Enter" && event.target !== place) return;  // a button's own
  const keys = {
    j: () => move(1), k: () => move(-1), n: nextOpen, a: () => approve(place), l: () => lock(place),
    s: () => play(place, "source"), d: () => play(place, "dub"), "?": help,
    Enter: () => { const area = place.querySelector("textarea"); area.focus(); area.setSelectionRange(area.value.length, area.value.length); },
  };
  if (keys[event.key]) {
    event.preventDefault();
    keys[event.key]();
  }
});

$("lines").addEventListener("focusin", (event) => {
  const place = event.target.closest("li[data-line]");
  if (place && place !== state.current) choose(place, false);
});

$("lines").addEventListener("focusout", (event) => {
  if (event.target.tagName === "TEXTAREA") save(event.target.closest("li[data-line]"));
});

$("lines").addEventListener("input", (event) => {
  const place = event.target.closest("li[data-line]");
  grow(event.target);
  clearTimeout(state.timers.get(place));
  state.timers.set(place, setTimeout(async () => {
    const text = event.target.value;
    const found = await trying(() => ask("/api/estimate", mine({ text, voice: place.line.voice })));
    if (found && event.target.value === text) length(place, found.seconds);
  }, 150));
});

$("lines").addEventListener("click", (event) => {
  const place = event.target.closest("li[data-line]"), button = event.target.closest("button");
  if (!place || !button) return;
  if (button.matches(".play-source")) play(place, "source");
  if (button.matches(".play-dub")) play(place, "dub");
  if (button.matches(".lock")) lock(place);
  if (button.matches(".approve")) approve(place);
});

function help() {
  $("help").hidden = !$("help").hidden;
  $("help-button").setAttribute("aria-expanded", String(!$("help").hidden));
}
$("help-button").addEventListener("click", help);
$("back").addEventListener("click", () => load({ offset: state.page.offset - state.page.page }, "first"));
$("on").addEventListener("click", () => load({ offset: state.page.offset + state.page.page }, "first"));
$("show").addEventListener("change", () => load({}, "none"));
$("find").addEventListener("submit", (event) => {
  event.preventDefault();
  const id = $("at").value.trim().toUpperCase();
  if (id) load({ at: id }, "first");
});
$("which").addEventListener("change", () => {
  state.which = state.all[Number($("which").value)];
  load({}, "none");
});
$("approve-all").addEventListener("click", async () => {
  const { unapproved, language } = state.page;
  if (!confirm(`Approve all lines of ${language} that are not approved yet?`)) return;
  const found = await trying(() => ask("/api/approve", mine({})));
  if (!found) return;
  await load({ offset: state.page.offset }, "none");
  say(`${unapproved ? "Everything is approved" : "Nothing was left"}${found.said ? `; ${found.said}` : ""}`);
});
$("run").addEventListener("click", async () => {
  const found = await trying(() => ask("/api/run", mine({})));
  if (found) { head(found); say(found.said); }
});
window.addEventListener("resize", () => {
  for (const area of $("lines").querySelectorAll("textarea")) grow(area);
});
window.addEventListener("beforeunload", (event) => {
  const place = state.current, area = place && place.querySelector("textarea");
  if (area && area.value !== place.line.text) event.preventDefault();
});

(async () => {
  const found = await trying(() => ask("/api/reviews"));
  if (!found) return;
  state.all = found.reviews;
  const words = { awaiting: " – awaiting review", approved: " – approved", open: "" };
  $("which").replaceChildren(...found.reviews.map((one, number) => {
    const option = made("option", `${one.episode} · ${one.language}${words[one.state]}`);
    option.value = String(number);
    return option;
  }));
  if (!found.reviews.length) { say("Nothing was translated yet", true); return; }
  const first = Math.max(0, found.reviews.findIndex((one) => one.state === "awaiting"));
  $("which").value = String(first);
  state.which = found.reviews[first];
  await load({}, "first");
})();
