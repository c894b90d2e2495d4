// node's ssh2: authentication with none and with a password, exec, a terminal, signals, sftp.
const { Client } = require('ssh2');
const fs = require('fs');
const { ADDR, USER_, WORK, BIG, BIN } = process.env;

const check = (what, ok, got) => {
  if (!ok) { console.error('not ok', what, got); process.exit(1); }
  console.log('ok', what);
};
const connect = (more) => new Promise((good, bad) => {
  const c = new Client();
  c.on('ready', () => good(c)).on('error', bad).connect({ host: ADDR, username: USER_, readyTimeout: 60000, ...more });
});
const exec = (c, command, { input, pty, signal } = {}) => new Promise((good, bad) => c.exec(command, pty ? { pty } : {}, (err, s) => {
  if (err) return bad(err);
  const out = [], errs = [];
  s.on('data', (d) => { out.push(d); if (signal) s.signal(signal); }).stderr.on('data', (d) => errs.push(d));
  s.on('close', (code, sig) => good({ out: Buffer.concat(out), err: Buffer.concat(errs).toString(), code, sig }));
  if (input !== undefined) s.end(input);
}));
const call = (o, f, ...args) => new Promise((good, bad) => o[f](...args, (err, v) => (err ? bad(err) : good(v))));

(async () => {
  const n = await connect({});
  check('auth none', true);
  n.end();
  const c = await connect({ password: 'any' });
  check('auth password', true);
  let r = await exec(c, 'echo out; echo err >&2; exit 7');
  check('exec, standard error, exit status', r.out.toString() === 'out\n' && r.err === 'err\n' && r.code === 7, r);
  r = await exec(c, 'sort; echo done', { input: 'b\na\n' });
  check('half-close', r.out.toString() === 'a\nb\ndone\n', r);
  const bin = fs.readFileSync(BIN);
  r = await exec(c, 'cat', { input: bin });
  check('binary safety', r.out.equals(bin));
  r = await exec(c, 'echo ready; exec sleep 60', { signal: 'TERM' });
  check('signal, exit-signal', r.sig === 'SIGTERM' || r.sig === 'TERM', r);
  r = await exec(c, 'stty size', { pty: { rows: 33, cols: 111 } });
  check('pty', r.out.toString().trim() === '33 111', r);
  const s = await call(c, 'sftp');
  await call(s, 'fastPut', BIG, 'by-ssh2');
  await call(s, 'fastGet', 'by-ssh2', WORK + '/back');
  check('sftp both ways', fs.readFileSync(BIG).equals(fs.readFileSync(WORK + '/back')));
  await call(s, 'mkdir', 'ssh2-d');
  await call(s, 'rename', 'by-ssh2', 'ssh2-d/x');
  const list = await call(s, 'readdir', 'ssh2-d');
  check('sftp operations', list.some((e) => e.filename === 'x'), list);
  await call(s, 'ext_openssh_statvfs', 'ssh2-d');
  await call(s, 'ext_openssh_hardlink', 'ssh2-d/x', 'ssh2-d/y');
  await call(s, 'ext_openssh_rename', 'ssh2-d/x', 'ssh2-d/y');
  check('sftp extensions', true);
  c.end();
})().catch((e) => { console.error('not ok', e); process.exit(1); });
