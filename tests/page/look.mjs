// Looks at the page of a worker that has two GPUs, two running jobs, a history and earnings.
//
//   node look.mjs WORKER NVML-LIBRARY AXE FOLDER-FOR-PICTURES

import assert from 'node:assert/strict';
import { execFileSync } from 'node:child_process';
import { mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync, writeFileSync } from 'node:fs';
import { tmpdir } from 'node:os';
import { join } from 'node:path';

import { browse, start } from './browser.mjs';

const [worker, library, axe, pictures] = process.argv.slice(2);
const BOUND_MS = 60_000;
// So long the curves are fed before the pictures are taken: PAGE_SECONDS=60 makes fuller ones.
const FEED_SECONDS = Number(process.env.PAGE_SECONDS ?? 8);

const home = mkdtempSync(join(tmpdir(), 'page-'));
const state = join(home, 'state');
// What still writes there is killed at the same moment.
process.on('exit', () => rmSync(home, { recursive: true, force: true, maxRetries: 10, retryDelay: 50 }));

async function until(what, find) {
  const end = Date.now() + BOUND_MS;
  while (Date.now() < end) {
    const found = await find();
    if (found) return found;
    await new Promise((wake) => setTimeout(wake, 50));
  }
  throw new Error(`waited ${BOUND_MS} ms in vain for ${what}`);
}

function passed(what) {
  console.log(`ok: ${what}`);
}

// Two GPUs, of which the first is so warm.
function setGpus(temp, beat = 0) {
  const wave = (middle, swing, pace) => Math.round(middle + swing * Math.sin(beat / pace));
  const gpu = (number, more) => ({
    uuid: `GPU-5f2c91d0-000${number}`, mem_total: 24576 * 2 ** 20, power_limit_mw: 350000, energy_mj: beat * 300000, ...more,
  });
  const gpus = [
    gpu(0, { util: wave(92, 6, 4), temp, power_mw: wave(318000, 24000, 5), mem_used: 18432 * 2 ** 20 }),
    gpu(1, { util: wave(45, 40, 9), temp: wave(54, 6, 12), power_mw: wave(180000, 70000, 9), mem_used: 6144 * 2 ** 20 }),
  ];
  writeFileSync(join(home, 'new.json'), JSON.stringify({ driver: '580.95.05', gpus }));
  renameSync(join(home, 'new.json'), join(home, 'script.json'));
}

// A month of jobs, the same each time.
function writeLedger() {
  const kinds = ['compute', 'training', 'inference', 'fine-tuning', 'compute'];
  const lines = [];
  for (let ago = 29; ago >= 0; ago -= 1) {
    const count = ago % 11 === 7 ? 0 : 2 + ((ago * 7) % 5);
    for (let n = 0; n < count; n += 1) {
      const ended = new Date(Date.now() - ago * 86_400_000 - (count - n) * 1_260_000).toISOString();
      const seconds = 900 + ((ago * 977 + n * 613) % 5200) + 0.25;
      const status = (ago + n) % 13 === 5 ? 'failed' : 'completed';
      const kind = kinds[(ago + n) % kinds.length];
      lines.push(JSON.stringify({
        id: `${kind}-${4200 - ago * 7 + n}`, attempt: 1, kind, status, reason: null, seconds, kwh: seconds * 0.000087,
        price: 2.5, amount: status === 'completed' ? (seconds / 3600) * 2.5 : 0, gpus: [], cids: [],
        origin: 'https://market.example:443', ended, booked: ended,
      }));
    }
  }
  writeFileSync(join(state, 'ledger.jsonl'), `${lines.join('\n')}\n`, { mode: 0o600 });
}

// The machine's speed, so that nothing is measured beside what is looked at.
function writeSpeed() {
  const { specs } = JSON.parse(execFileSync(worker, ['specs', '--state-dir', state], { env: {}, encoding: 'utf8' }));
  const measured = { gflops: 812.4, cpuShare: 1, seconds: 3, threads: specs.cpu_cores, vectors: 'AVX2' };
  const speed = { measured, cpuModel: specs.cpu_model, cpuCores: specs.cpu_cores, method: 1 };
  writeFileSync(join(state, 'speed.json'), JSON.stringify({ format: 1, speed }), { mode: 0o600 });
}

function printLog(key) {
  const lines = Array.from({ length: 9 }, (_, n) =>
    `epoch ${n + 14}/30  loss ${(0.42 - n * 0.021).toFixed(4)}  accuracy ${(0.871 + n * 0.009).toFixed(3)}`);
  lines.unshift("<script>(document.title = 'owned')</script>");
  mkdirSync(join(state, 'logs'), { recursive: true });
  writeFileSync(join(state, 'logs', `${key}.log`), `${lines.join('\n')}\n`);
}

async function startWorker() {
  const mock = await start(worker, ['mock-backend', '--listen', '127.0.0.1:0'], /listening on (http:\S+)/);
  mkdirSync(state, { mode: 0o700 });
  writeLedger();
  writeSpeed();
  setGpus(64);
  const agent = await start(worker, [
    'run', '--backend', mock.match[1], '--state-dir', state, '--name', 'Attic workstation', '--price', '2.5', '--slots', '2',
    '--heartbeat-interval', '1s', '--progress-interval', '1s', '--min-free', '0', '--nvml-library', library, '--listen', '0',
  ], /status page at (http:\/\/\S+)/, { SCRIPTED_NVML: join(home, 'script.json') });
  const submit = (job) => fetch(`${mock.match[1]}/api/jobs/submit`, {
    method: 'POST', headers: { 'Content-Type': 'application/json' }, body: JSON.stringify(job),
  });
  // So short that pictures show them on their way, if there is time to wait for that.
  const amount = Number(process.env.PAGE_AMOUNT ?? 1000);
  const compute = (id, computeNeeded) => ({ id, modelType: 'compute', computeNeeded, inputData: { kernel: 'primes', seed: 1 } });
  await submit(compute('warm-up', 0.0001));
  await submit(compute('render-lighting-0117', amount));
  await submit(compute('protein-fold-88', 3 * amount));
  return { url: agent.match[1], agent };
}

const getStatus = async (url) => (await fetch(`${url}/status.json`)).json();
const at = (value, path) => path.split('/').slice(1).reduce((here, name) => here?.[name], value);

// Of all numbers of the page: what they stand for, what the status says, and what is to be read.
const NUMBERS = `[...document.querySelectorAll('data')].map((number) =>
  ({ path: number.dataset.json, value: Number(number.value), text: number.textContent }))`;

// A number as it is read has the digits of its value, or of a thousandth in other units.
function reads(text, value) {
  const read = text.replaceAll('\u202f', '').replace(/ .*$/, '');
  const digits = (read.split('.')[1] ?? '').length;
  return [1, 1024, 1 / 1000].some((unit) => Math.abs(value / unit - Number(read)) <= 0.5001 * 10 ** -digits);
}

async function numbersAgree(browser, url, shown = () => browser.evaluate(NUMBERS)) {
  let wrong;
  // Between the two answers the worker may have gone on.
  const count = await until('the page to agree with status.json', async () => {
    const numbers = await shown();
    const status = await getStatus(url);
    wrong = numbers.filter(({ path, value, text }) => at(status, path) !== value || !reads(text, value));
    return wrong.length === 0 && numbers.length;
  }).catch((error) => { throw new Error(`${error.message}: ${JSON.stringify(wrong)}`); });
  assert(count > 25, `${count} numbers`);
  return count;
}

async function looksGood(browser, url) {
  for (const [width, scheme] of [[1280, 'light'], [1280, 'dark'], [390, 'light'], [390, 'dark']]) {
    await browser.look(width, scheme);
    await browser.open(url);
    const over = await browser.evaluate('document.documentElement.scrollWidth - innerWidth');
    assert(over <= 0, `${width} px ${scheme}: ${over} px too wide`);
    await browser.picture(join(pictures, `${width}-${scheme}.png`));
    await browser.evaluate(`${readFileSync(axe, 'utf8')}; 0`);
    const found = await browser.evaluate('axe.run().then(({ violations }) => violations.map(({ id, impact, nodes }) => ({ id, impact, nodes: nodes.map(({ html, failureSummary }) => [html, failureSummary]) })))');
    assert.deepEqual(found, [], `axe-core at ${width} px ${scheme}`);
    passed(`${width} px ${scheme}: axe-core finds nothing`);
  }
}

// From the moment that the status has it to the moment that the page shows it.
async function renewsItself(browser, url) {
  setGpus(91);
  await until('the status to say 91 °C', async () => (await getStatus(url)).usage.gpus[0].tempCelsius === 91);
  const since = Date.now();
  const shown = `document.querySelector('[data-json="/usage/gpus/0/tempCelsius"]')?.value`;
  await until('the page to show 91 °C', async () => (await browser.evaluate(shown)) === '91');
  passed(`a change is shown after ${Date.now() - since} ms`);
}

async function worksWithoutScript(browser, url) {
  await browser.tell('Emulation.setScriptExecutionDisabled', { value: true });
  await browser.open(url);
  // What the browser has made of it, asked from outside.
  const shown = async () => {
    await browser.open(url);
    return browser.evaluate(NUMBERS);
  };
  const count = await numbersAgree(browser, url, shown);
  await browser.tell('Emulation.setScriptExecutionDisabled', { value: false });
  passed(`without script, ${count} numbers are those of status.json`);
}

async function metricsAreClean(url) {
  const text = await (await fetch(`${url}/metrics`)).text();
  execFileSync('promtool', ['check', 'metrics'], { input: text });
  for (const name of ['worker_gpu_temperature_celsius{gpu="1"', 'worker_jobs_running 2', 'worker_jobs_total{kind="compute",status="completed"} 1', 'worker_job_duration_seconds_bucket{kind="compute",le="+Inf"} 1']) {
    assert(text.includes(`\n${name}`), `${name} in\n${text}`);
  }
  passed('promtool has nothing to say about /metrics');
}

async function feed() {
  for (let beat = 0; beat < FEED_SECONDS; beat += 1) {
    setGpus(Math.round(66 + 5 * Math.sin(beat / 7)), beat);
    await new Promise((wake) => setTimeout(wake, 1000));
  }
}

const { url, agent } = await startWorker();
process.on('uncaughtException', (error) => {
  console.error(`${error.stack}\n---- the worker said:\n${agent.child.said}`);
  process.exit(1);
});
console.log(`page at ${url}`);
const status = await until('two jobs and two GPUs', async () => {
  const now = await getStatus(url);
  return now.jobs.length === 2 && now.usage?.gpus.length === 2 && now.sinceStart.completed === 1 && now;
});
await feed();
printLog(status.jobs[0].key);
await metricsAreClean(url);
for (const [path, code] of [['/healthz', 200], ['/readyz', 200], ['/nothing', 404]]) {
  assert.equal((await fetch(url + path)).status, code, path);
}
const browser = await browse();
try {
  await looksGood(browser, url);
  passed(`${await numbersAgree(browser, url)} numbers are those of status.json`);
  assert((await browser.evaluate("document.querySelector('pre')?.textContent")).startsWith("<script>"));
  assert.notEqual(await browser.evaluate('document.title'), 'owned');
  await renewsItself(browser, url);
  await worksWithoutScript(browser, url);
  await browser.look(1280, 'light');
  await browser.open(url);
  const complaints = await browser.complaints();
  assert.deepEqual(complaints, [], 'what the browser complains of');
  passed('the browser has no complaint');
  agent.end();
  await until('the page to say that it is old', () => browser.evaluate("!document.getElementById('lost').hidden"));
  passed('a page whose worker is gone says so');
} finally {
  await browser.close();
}
process.exit(0);
