// A headless Chromium, driven by chromedriver over plain HTTP; most of it by way of its own protocol.

import { spawn } from 'node:child_process';
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

const FLAGS = [
  '--headless', '--no-sandbox', '--disable-gpu', '--disable-quic', '--no-first-run',
  '--disable-background-networking', '--disable-component-update', '--disable-sync',
];

// Starts a program and waits for a line that matches; resolves to the program and the match.
export function start(command, args, pattern, env = {}) {
  const child = spawn(command, args, { env: { PATH: process.env.PATH, ...env }, detached: true });
  child.said = '';
  const end = () => { try { process.kill(-child.pid, 'SIGKILL'); } catch { /* it has ended */ } };
  process.on('exit', end);
  return new Promise((resolve, reject) => {
    const hear = (data) => {
      child.said += data;
      const match = child.said.match(pattern);
      if (match) resolve({ child, match, end });
    };
    child.stdout.on('data', hear);
    child.stderr.on('data', hear);
    child.on('exit', (code) => reject(new Error(`${command} ended with ${code}:\n${child.said}`)));
    child.on('error', reject);
  });
}

export async function browse() {
  const profile = mkdtempSync(join(tmpdir(), 'page-'));
  const { match, end } = await start('chromedriver', ['--port=0'], /started successfully on port (\d+)/, { HOME: profile });
  const at = `http://127.0.0.1:${match[1]}/session`;
  const options = { args: [...FLAGS, `--user-data-dir=${profile}/data`] };
  const capabilities = { alwaysMatch: { 'goog:chromeOptions': options, 'goog:loggingPrefs': { browser: 'ALL' } } };
  const { sessionId } = await post(at, { capabilities });
  const session = `${at}/${sessionId}`;
  const tell = (cmd, params = {}) => post(`${session}/goog/cdp/execute`, { cmd, params });
  return {
    tell,
    open: (url) => post(`${session}/url`, { url }),
    // The value of an expression in the page; a promise is waited for.
    async evaluate(expression) {
      const told = await tell('Runtime.evaluate', { expression, awaitPromise: true, returnByValue: true });
      if (told.exceptionDetails) throw new Error(JSON.stringify(told.exceptionDetails));
      return told.result.value;
    },
    look: (width, scheme) => Promise.all([
      tell('Emulation.setDeviceMetricsOverride', { width, height: 900, deviceScaleFactor: 1, mobile: width < 600 }),
      tell('Emulation.setScrollbarsHidden', { hidden: true }),
      tell('Emulation.setEmulatedMedia', { features: [{ name: 'prefers-color-scheme', value: scheme }] }),
    ]),
    async picture(path) {
      const { data } = await tell('Page.captureScreenshot', { captureBeyondViewport: true });
      writeFileSync(path, Buffer.from(data, 'base64'));
    },
    complaints: () => post(`${session}/se/log`, { type: 'browser' }),
    async close() {
      await fetch(session, { method: 'DELETE' });
      end();
      rmSync(profile, { recursive: true, force: true, maxRetries: 5 });
    },
  };
}

async function post(url, body) {
  const reply = await fetch(url, { method: 'POST', body: JSON.stringify(body) });
  const { value } = await reply.json();
  if (!reply.ok) throw new Error(`${url}: ${value.error}: ${value.message}`);
  return value;
}
