// Renews what has changed, once a second. The server writes all of it: without this the page is as
// true, but stands still.
'use strict';

const EVERY_MS = 1000;
const PATIENCE_MS = 5000;
const lost = document.getElementById('lost');

async function renew() {
  const reply = await fetch('/', { cache: 'no-store', signal: AbortSignal.timeout(PATIENCE_MS) });
  if (!reply.ok) throw new Error(reply.statusText);
  const fresh = new DOMParser().parseFromString(await reply.text(), 'text/html');
  document.title = fresh.title;
  for (const part of document.querySelectorAll('[data-live]')) {
    const other = fresh.querySelector(`[data-live="${part.dataset.live}"]`);
    if (other && other.innerHTML !== part.innerHTML && !isInUse(part)) replace(part, other);
  }
}

// Somebody marks some text of it.
function isInUse(part) {
  const marked = document.getSelection();
  return !marked.isCollapsed && part.contains(marked.anchorNode);
}

// What was opened stays open, and who reads the log's end goes on reading it.
function replace(part, other) {
  const open = [...part.querySelectorAll('details')].map((details) => details.open);
  const focused = [...part.querySelectorAll('summary, pre')].indexOf(document.activeElement);
  part.innerHTML = other.innerHTML;
  part.querySelectorAll('details').forEach((details, at) => { details.open = open[at] ?? false; });
  if (focused >= 0) part.querySelectorAll('summary, pre')[focused]?.focus({ preventScroll: true });
  toTheEnd(part);
}

function toTheEnd(part) {
  for (const log of part.querySelectorAll('pre')) log.scrollTop = log.scrollHeight;
}

async function keepRenewing() {
  if (!document.hidden) {
    try {
      await renew();
      lost.hidden = true;
    } catch {
      lost.hidden = false;
    }
  }
  setTimeout(keepRenewing, EVERY_MS);
}

toTheEnd(document);
keepRenewing();
