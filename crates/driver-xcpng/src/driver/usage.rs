//! What VMs use, for `vmoon top`: one request to each host that runs any, for what it has measured since it was last asked.
//!
//! Hosts measure how busy each virtual processor was in each interval of a few seconds. What is shown elsewhere is processor time, which never falls, so it is added
//! up here, from when somebody first asks. A VM's memory is what it was given; its own tools tell how much of that is free where they are there.

use super::{handle, pool::Pool, uuid};
use std::{
    collections::{BTreeSet, HashMap},
    sync::{Mutex, PoisonError},
    time::Duration,
};
use tokio::time::timeout;
use vmoon_core::{
    Result,
    driver::{Handle, Usage},
};
use vmoon_xapi::{
    records::{Host, PowerState},
    rrd::{Of, Updates},
};

/// How long all hosts together may take: it is asked every few seconds.
const PATIENCE: Duration = Duration::from_secs(4);
/// How far back is asked the first time, seconds.
const FIRST: i64 = 15;

/// What was counted so far.
#[derive(Debug, Default)]
pub(super) struct Meters(Mutex<HashMap<String, Meter>>);

#[derive(Clone, Debug, Default)]
struct Meter {
    /// Processor time so far, microseconds.
    cpu_us: u64,
    /// The newest interval that is counted, seconds since the Unix epoch by the host's clock.
    until: i64,
    memory_bytes: u64,
    free_bytes: u64,
}

impl Meter {
    /// Adds what a host has measured of this VM.
    fn add(&mut self, uuid: &str, updates: &Updates) {
        let of = Of::Vm(uuid.to_owned());
        let mut newest = self.until;
        for series in updates.series.iter().filter(|series| series.of == of && series.function == "AVERAGE") {
            let number = series.name.strip_prefix("cpu").filter(|rest| !rest.is_empty() && rest.bytes().all(|b| b.is_ascii_digit()));
            if number.is_none() {
                continue;
            }
            for (at, busy) in updates.times.iter().zip(&series.values) {
                if *at <= self.until || !busy.is_finite() {
                    continue;
                }
                newest = newest.max(*at);
                // A share of one processor for one interval; nonsense is no time.
                self.cpu_us += (busy.clamp(0.0, 1.0) * updates.step.max(1) as f64 * 1e6) as u64;
            }
        }
        self.until = newest;
        let bytes = |name: &str| updates.newest(&of, name).filter(|n| n.is_finite() && *n >= 0.0);
        if let Some(memory) = bytes("memory") {
            self.memory_bytes = memory as u64;
        }
        // In KiB, as the guest's tools count.
        self.free_bytes = bytes("memory_internal_free").map_or(0, |kib| (kib * 1024.0) as u64);
    }
}

impl Pool {
    /// What these VMs use. Those of a host that does not answer in time are left out.
    pub(super) async fn usage(&self, handles: &[Handle]) -> Vec<Usage> {
        let wanted: BTreeSet<String> = handles.iter().filter_map(|handle| uuid(handle).ok()).collect();
        match timeout(PATIENCE, self.measure(&wanted)).await {
            Ok(Ok(found)) => found,
            Ok(Err(error)) => {
                tracing::debug!(error = %error.chain(), "what VMs use is not known");
                Vec::new()
            }
            Err(_) => Vec::new(),
        }
    }

    async fn measure(&self, wanted: &BTreeSet<String>) -> Result<Vec<Usage>> {
        let (vms, hosts) = tokio::try_join!(self.vms(), self.all::<Host>("host"))?;
        let mut by_host: HashMap<String, Vec<(String, u64)>> = HashMap::new();
        for (_, vm) in vms {
            if vm.power_state == PowerState::Running && wanted.contains(&vm.uuid) {
                let memory = u64::try_from(vm.memory_dynamic_max).unwrap_or(0);
                by_host.entry(vm.resident_on.as_str().to_owned()).or_default().push((vm.uuid, memory));
            }
        }
        let client = self.client()?;
        let asked = by_host.into_iter().map(|(host, vms)| {
            let (client, address) = (client.clone(), hosts.get(&host).map(|host| host.address.clone()));
            // One pool of one host may be known by a name that its address is not reached by.
            let address = if hosts.len() > 1 { address } else { None };
            let since = self.measured_until(&vms);
            async move {
                let now = match since {
                    Some(since) => Ok(since),
                    None => server_time(&client, &host).await.map(|now| now - FIRST),
                };
                let updates = match now {
                    Ok(since) => client.measured(address.as_deref(), since).await,
                    Err(error) => Err(error),
                };
                (vms, updates)
            }
        });
        let answers = futures_util::future::join_all(asked).await;
        let mut meters = self.meters.0.lock().unwrap_or_else(PoisonError::into_inner);
        meters.retain(|uuid, _| wanted.contains(uuid));
        let mut found = Vec::new();
        for (vms, updates) in answers {
            match updates {
                Ok(updates) => {
                    for (uuid, memory) in vms {
                        let meter = meters.entry(uuid.clone()).or_default();
                        meter.add(&uuid, &updates);
                        let given = if meter.memory_bytes > 0 { meter.memory_bytes } else { memory };
                        let memory_bytes = given.saturating_sub(meter.free_bytes);
                        found.push(Usage { handle: handle(&uuid), pid: None, cpu_us: meter.cpu_us, memory_bytes });
                    }
                }
                Err(error) => tracing::debug!(%error, "a host tells no measurements"),
            }
        }
        Ok(found)
    }

    /// Until when everything of these is counted; nothing if one of them is new.
    fn measured_until(&self, vms: &[(String, u64)]) -> Option<i64> {
        let meters = self.meters.0.lock().unwrap_or_else(PoisonError::into_inner);
        let untils: Option<Vec<i64>> =
            vms.iter().map(|(uuid, _)| meters.get(uuid).map(|meter| meter.until).filter(|until| *until > 0)).collect();
        untils?.into_iter().min()
    }
}

/// The time by a host's clock, seconds since the Unix epoch.
async fn server_time(client: &vmoon_xapi::Client, host: &str) -> vmoon_xapi::Result<i64> {
    let time: vmoon_xapi::value::Time = client.get("host.get_servertime", vec![host.into()]).await?;
    Ok(time.unix)
}

#[cfg(test)]
mod tests {
    use super::*;
    use vmoon_xapi::rrd::Series;

    fn updates(times: &[i64], cpu: &[f64]) -> Updates {
        let series = |name: &str, values: &[f64]| Series {
            function: "AVERAGE".into(),
            of: Of::Vm("u".into()),
            name: name.into(),
            values: values.to_vec(),
        };
        let memory = vec![1e9; times.len()];
        Updates { step: 5, times: times.to_vec(), series: vec![series("cpu0", cpu), series("cpu_usage", cpu), series("memory", &memory)] }
    }

    #[test]
    fn processor_time_is_counted_once_and_never_falls() {
        let mut meter = Meter::default();
        meter.add("u", &updates(&[110, 105], &[0.5, 1.0]));
        assert_eq!((meter.cpu_us, meter.until, meter.memory_bytes), (7_500_000, 110, 1_000_000_000));
        meter.add("u", &updates(&[115, 110, 105], &[0.2, 0.5, 1.0]));
        assert_eq!(meter.cpu_us, 8_500_000, "what was counted is not counted again");
        meter.add("u", &updates(&[120, 125], &[f64::NAN, -3.0]));
        assert_eq!(meter.cpu_us, 8_500_000);
        meter.add("other", &updates(&[130], &[1.0]));
        assert_eq!(meter.cpu_us, 8_500_000);
    }
}
