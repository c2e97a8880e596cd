//! Settings that are read again while the agent runs: which of them hold at once.

use super::{Config, Connection, Identity};

/// What is otherwise than before.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Changes {
    pub(crate) now: Vec<&'static str>,
    /// Only after a restart.
    pub(crate) later: Vec<&'static str>,
}

/// What the backend is told of at the registration.
const REGISTERED: [&str; 5] = ["name", "price", "location", "address", "slots"];

impl Changes {
    /// Whether the backend has to hear of it.
    pub(crate) fn is_registered(&self) -> bool {
        self.now.iter().any(|key| REGISTERED.contains(key))
    }
}

impl Config {
    /// The settings that hold from now on, of those that were read anew.
    pub(crate) fn renewed(&self, new: Self) -> (Self, Changes) {
        let changes = Changes { now: self.changed_now(&new), later: self.changed_later(&new) };
        let identity = Identity {
            worker_id: self.identity.worker_id.clone(),
            state_dir: self.identity.state_dir.clone(),
            nvml_library: self.identity.nvml_library.clone(),
            ..new.identity
        };
        let connection =
            Connection { token_file: new.connection.token_file, ..self.connection.clone() };
        let config = Self {
            identity,
            connection,
            rules: new.rules,
            artefacts: new.artefacts,
            jobs: self.jobs.clone(),
            listen: self.listen,
            log: self.log,
            service: self.service.clone(),
            file: new.file,
        };
        (config, changes)
    }

    fn changed_now(&self, new: &Self) -> Vec<&'static str> {
        let (identity, other) = (&self.identity, &new.identity);
        let (rules, others) = (&self.rules, &new.rules);
        let (artefacts, other_artefacts) = (&self.artefacts, &new.artefacts);
        // Bit by bit, so that nothing else than the same number is the same.
        let same_price = identity.price.to_bits() == other.price.to_bits();
        keys(&[
            ("name", identity.name != other.name),
            ("price", !same_price),
            ("location", identity.location != other.location),
            ("address", identity.address != other.address),
            ("token-file", self.connection.token_file != new.connection.token_file),
            ("slots", rules.slots != others.slots),
            ("max-jobs", rules.max_jobs != others.max_jobs),
            ("exit-when-idle", rules.exit_when_idle != others.exit_when_idle),
            ("min-free", rules.min_free != others.min_free),
            ("heartbeat-interval", rules.heartbeat_interval != others.heartbeat_interval),
            ("progress-interval", rules.progress_interval != others.progress_interval),
            ("max-failures", rules.max_failures != others.max_failures),
            ("drain-timeout", rules.drain_timeout != others.drain_timeout),
            ("allow-private-downloads", rules.private_downloads != others.private_downloads),
            ("artefact-space", artefacts.space != other_artefacts.space),
            ("reuse-results", artefacts.reuse != other_artefacts.reuse),
            ("ipfs-api", artefacts.ipfs_api != other_artefacts.ipfs_api),
        ])
    }

    fn changed_later(&self, new: &Self) -> Vec<&'static str> {
        let (identity, other) = (&self.identity, &new.identity);
        let (connection, other_connection) = (&self.connection, &new.connection);
        let (jobs, other_jobs) = (&self.jobs, &new.jobs);
        keys(&[
            ("backend", connection.backend != other_connection.backend),
            ("ca-cert", connection.ca_cert != other_connection.ca_cert),
            ("request-timeout", connection.request_timeout != other_connection.request_timeout),
            ("worker-id", identity.worker_id != other.worker_id),
            ("state-dir", identity.state_dir != other.state_dir),
            ("nvml-library", identity.nvml_library != other.nvml_library),
            ("allow", jobs.kinds != other_jobs.kinds),
            ("interpreters", jobs.interpreters != other_jobs.interpreters),
            ("limit-memory", jobs.limits.memory != other_jobs.limits.memory),
            ("limit-cpus", jobs.limits.cpus != other_jobs.limits.cpus),
            ("limit-disk", jobs.limits.disk != other_jobs.limits.disk),
            ("limit-time", jobs.limits.time != other_jobs.limits.time),
            ("limits-by-polling", jobs.limits_by_polling != other_jobs.limits_by_polling),
            ("listen", self.listen != new.listen),
            ("log-format", self.log.format != new.log.format),
            ("verbose or quiet", self.log.level != new.log.level),
        ])
    }
}

fn keys(settings: &[(&'static str, bool)]) -> Vec<&'static str> {
    settings.iter().filter(|(_, changed)| *changed).map(|(key, _)| *key).collect()
}
