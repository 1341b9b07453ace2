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
  ready REAL,  -- Namespace: its ServiceAccount and root CA exist; with pods: all of them ran; else: accepted
  stateless INTEGER,  -- 1, 0; NULL: it owns no pods
  PRIMARY KEY(kind, namespace, name)
);
CREATE TABLE IF NOT EXISTS actions(  -- what phases did to objects that were there; those keep their row as it was
  phase TEXT, number INTEGER,
  verb TEXT,  -- create (again), delete, scale, roll, patch
  kind TEXT, namespace TEXT, name TEXT,
  intended REAL, sent REAL, accepted REAL,
  status INTEGER, retries INTEGER, throttled INTEGER, failed INTEGER,
  done REAL,  -- its pods are as they are meant to be
  replicas INTEGER,  -- pods that the object is to have from then on; NULL: as before
  PRIMARY KEY(phase, number)
) WITHOUT ROWID;
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
  restarts INTEGER,
  phase TEXT          -- Succeeded, Failed; NULL: neither
);
CREATE TABLE IF NOT EXISTS requests(  -- the load generator's own, by second of the answer
  phase TEXT, second INTEGER, resource TEXT, verb TEXT, sent INTEGER, accepted INTEGER, throttled INTEGER,
  retried INTEGER, failed INTEGER, latency_sum REAL, latency_max REAL,
  intended INTEGER  -- meant for that second; in a closed loop: first sends
);
CREATE TABLE IF NOT EXISTS latencies(  -- of accepted requests, from the intended time; counts of a bucket alone
  phase TEXT, resource TEXT, verb TEXT,
  le REAL,  -- upper edge of the bucket, seconds
  count INTEGER,
  PRIMARY KEY(phase, resource, verb, le)
) WITHOUT ROWID;
CREATE TABLE IF NOT EXISTS watches(  -- those that phases of kind read hold, by second
  phase TEXT, second INTEGER, resource TEXT, held INTEGER, opened INTEGER, resumed INTEGER, failed INTEGER,
  events INTEGER, bytes INTEGER
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
