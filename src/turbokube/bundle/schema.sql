-- The record of a run. Times are UNIX seconds (wall clock); NULL: has not happened, or is not known.
CREATE TABLE IF NOT EXISTS meta(key TEXT PRIMARY KEY, value TEXT) WITHOUT ROWID;  -- values are JSON
CREATE TABLE IF NOT EXISTS phases(
  name TEXT PRIMARY KEY, kind TEXT, spec TEXT, started REAL, ended REAL,
  state TEXT,  -- running, done, deadline, stopped
  note TEXT
);
CREATE TABLE IF NOT EXISTS objects(  -- the ledger; a Namespace's own row has its name in both columns
  phase TEXT, kind TEXT, namespace TEXT, name TEXT,
  intended REAL, sent REAL, accepted REAL,
  status INTEGER,  -- HTTP status of the last answer
  retries INTEGER, throttled INTEGER, failed INTEGER,
  replicas INTEGER,
  ready REAL,  -- Namespace: its ServiceAccount and root CA exist; else: all its pods ran
  PRIMARY KEY(kind, namespace, name)
);
CREATE TABLE IF NOT EXISTS pods(
  uid TEXT PRIMARY KEY, namespace TEXT, name TEXT, owner TEXT, node TEXT,
  created REAL,       -- creationTimestamp, whole seconds
  seen REAL,          -- first event of the watch
  scheduled REAL,     -- the PodScheduled condition's time, whole seconds
  bound_seen REAL,    -- the watch saw a nodeName
  started REAL,       -- latest startedAt of its containers, whole seconds
  running_seen REAL,  -- the watch saw phase Running with every container ready
  deleted_seen REAL,  -- the watch saw it deleted, or Failed, or Succeeded
  listed INTEGER,     -- 1: a *_seen clock comes from a list after an interruption, so the moment is not known
  restarts INTEGER
);
CREATE TABLE IF NOT EXISTS requests(  -- the load generator's own, by second of the answer
  phase TEXT, second INTEGER, resource TEXT, verb TEXT, sent INTEGER, accepted INTEGER, throttled INTEGER,
  retried INTEGER, failed INTEGER, latency_sum REAL, latency_max REAL
);
CREATE TABLE IF NOT EXISTS series(
  id INTEGER PRIMARY KEY, component TEXT, kind TEXT, metric TEXT, labels TEXT, type TEXT,
  UNIQUE(component, metric, labels)
);
CREATE TABLE IF NOT EXISTS samples(series INTEGER, time REAL, value REAL);  -- only when the value has changed
CREATE INDEX IF NOT EXISTS samples_by_series ON samples(series, time);
CREATE TABLE IF NOT EXISTS scrapes(component TEXT, time REAL, duration REAL, ok INTEGER, error TEXT, bytes INTEGER);
CREATE TABLE IF NOT EXISTS nodes(time REAL, total INTEGER, ready INTEGER, notready_events INTEGER);
CREATE TABLE IF NOT EXISTS lag(time REAL, who TEXT, seconds REAL);
CREATE TABLE IF NOT EXISTS interruptions(started REAL, ended REAL, what TEXT, detail TEXT);
CREATE TABLE IF NOT EXISTS counts(time REAL, source TEXT, resource TEXT, count INTEGER);
