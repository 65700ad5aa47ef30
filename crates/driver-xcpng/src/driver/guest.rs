//! Entering guests over SSH: how a machine is entered is the truth of `vmoon-guest`; here is only what a pool adds, which run a VM is in and where it is.

use super::{XcpngDriver, hosts::only, pool::Pool, uuid};
use async_trait::async_trait;
use std::{collections::BTreeMap, net::Ipv6Addr};
use vmoon_core::{
    Code, Error, Result,
    ability::{Address, Ended, Exec, Program, UsedEnvironment},
    driver::{Channel, Handle, Observed, Offset, SessionLink},
    name::escape,
};
use vmoon_guest::{Account, Entrance, Guests, MAIN, Machine, Place, Places, SHELL};
use vmoon_xapi::{
    records::{PowerState, Vif, Vm, VmGuestMetrics},
    value::Time,
};

/// Where the VM's SSH server is, if that was said in its `other_config`.
const PORT: &str = "vmoon:ssh-port";
/// Where it is if nothing was said.
const SSH: u16 = 22;

/// Whether a channel is one inside the guest.
pub(super) fn is_inside(channel: &Channel) -> bool {
    matches!(channel.name.as_str(), MAIN | SHELL)
}

impl Pool {
    pub(super) fn guests(&self) -> Option<&Guests> {
        self.config.guests.as_ref()
    }

    /// The number of a VM's run: when it was started, which is the same after it was moved; its domain where nobody tells.
    pub(super) async fn run_of(&self, vm: &Vm) -> Result<u64> {
        let domain = u64::try_from(vm.domid).unwrap_or(0);
        let Some(metrics) = vm.metrics.known() else { return Ok(domain) };
        match self.client()?.get::<Time>("VM_metrics.get_start_time", only(metrics.as_str())).await {
            Ok(time) if !time.is_never() => Ok(u64::try_from(time.unix).unwrap_or(domain)),
            Ok(_) => Ok(domain),
            Err(error) if error.is("HANDLE_INVALID") => Ok(domain),
            Err(error) => Err(self.failed("look at the VM", error)),
        }
    }

    /// What a VM offers that is seen in this run.
    pub(super) fn channels(&self, vm: &Vm, run: u64, console: bool) -> Observed {
        let life = self.lives.seen(&vm.uuid, run);
        let mut channels = self.guests().map(|guests| guests.channels(&vm.uuid, life)).unwrap_or_default();
        if console {
            channels.push(super::console::channel(life));
        }
        Observed::On(channels)
    }

    /// Forgets how a machine is entered, and stops listening to it: it is deleted.
    pub(super) fn forget(&self, uuid: &str) {
        self.end_console(uuid);
        self.lives.over(uuid);
        if let Some(guests) = self.guests()
            && let Err(error) = guests.forget(uuid)
        {
            tracing::warn!(vm = uuid, error = %error.chain(), "how it was entered could not be forgotten");
        }
    }

    /// The VM and its life, if it runs now.
    async fn running(&self, uuid: &str) -> Result<(Vm, u64)> {
        let (_, vm) = self.known(uuid).await?;
        let name = escape(&vm.name_label);
        match vm.power_state {
            PowerState::Running => {
                let run = self.run_of(&vm).await?;
                let life = self.lives.seen(uuid, run);
                Ok((vm, life))
            }
            PowerState::Paused => {
                Err(Error::new(Code::MachinePaused, format!("{name} is paused")).hint(format!("resume it: vmoon resume {name}")))
            }
            PowerState::Suspended => {
                Err(Error::new(Code::MachineSuspended, format!("{name} is suspended")).hint(format!("resume it: vmoon resume {name}")))
            }
            _ => Err(Error::new(Code::MachineStopped, format!("{name} does not run")).hint(format!("start it: vmoon start {name}"))),
        }
    }

    /// Opens a channel inside a guest.
    pub(super) async fn open_inside(&self, uuid: &str, channel: &Channel, from: Offset) -> Result<SessionLink> {
        let guests = self.guests().ok_or_else(|| Error::new(Code::SessionChannel, "guests are not entered here"))?;
        let (vm, run) = match self.running(uuid).await {
            // Nothing of it is left to read from here.
            Err(error) if matches!(error.code(), Code::MachineStopped | Code::MachineBroken) => {
                return Err(Error::new(Code::SessionEnded, "the machine does not run any more"));
            }
            // It goes on where it stands still now.
            Err(error) if matches!(error.code(), Code::MachinePaused | Code::MachineSuspended) => {
                return Err(Error::new(Code::DriverUnreachable, error.message().to_owned()));
            }
            running => running?,
        };
        guests.open(&Machine { key: uuid, name: &vm.name_label, run }, channel, from, self).await
    }

    /// What a VM's tools have told, if anything.
    async fn told_by_tools(&self, vm: &Vm) -> Result<Option<VmGuestMetrics>> {
        let Some(metrics) = vm.guest_metrics.known() else { return Ok(None) };
        match self.client()?.get("VM_guest_metrics.get_record", vec![metrics.into()]).await {
            Ok(metrics) => Ok(Some(metrics)),
            // They are made anew with each boot: it has just been restarted.
            Err(error) if error.is("HANDLE_INVALID") => Ok(None),
            Err(error) => Err(self.failed("read the VM's addresses", error)),
        }
    }

    /// Why no address of a VM that runs is known.
    pub(super) async fn why_no_address(&self, vm: &Vm) -> Result<&'static str> {
        let told = self.told_by_tools(vm).await?;
        Ok(match told.filter(|metrics| !metrics.pv_drivers_version.is_empty() || !metrics.os_version.is_empty()) {
            None => "no guest tools have spoken; they are not installed in the guest, or not up yet",
            Some(_) if vm.vifs.is_empty() => "the VM has no network interface",
            Some(_) => "the guest's tools run and tell of none; its network gives it no lease, or not yet",
        })
    }

    /// Where a VM's SSH server may be reached, the best first.
    pub(super) async fn ssh_places(&self, uuid: &str) -> Result<Vec<(String, u16)>> {
        let places = self.places(uuid).await?;
        // Of an address that counts on one link only, nobody can say on which of ours.
        let leads = |host: &str| !host.parse::<Ipv6Addr>().is_ok_and(|ip| ip.is_unicast_link_local());
        Ok(places.into_iter().filter(|place| leads(&place.host)).map(|place| (place.host, place.port.unwrap_or(SSH))).collect())
    }

    /// The addresses that a VM's tools have told.
    pub(super) async fn addresses_of(&self, vm: &Vm) -> Result<Vec<Address>> {
        let Some(metrics) = self.told_by_tools(vm).await? else { return Ok(Vec::new()) };
        let client = self.client()?;
        let mut macs = BTreeMap::new();
        for vif in &vm.vifs {
            if let Ok(vif) = client.get::<Vif>("VIF.get_record", vec![vif.into()]).await {
                macs.insert(vif.device, vif.mac);
            }
        }
        Ok(super::pool::addresses(&metrics, &macs))
    }
}

#[async_trait]
impl Entrance for Pool {
    async fn enter(&self, handle: &Handle) -> Result<Account> {
        let uuid = uuid(handle)?;
        let guests = self.guests().ok_or_else(|| Error::new(Code::DriverUnsupported, "guests are not entered here"))?;
        let (vm, run) = self.running(&uuid).await?;
        guests.account(&Machine { key: &uuid, name: &vm.name_label, run }, self).await
    }

    fn used(&self) -> Vec<(Handle, UsedEnvironment)> {
        let used = self.guests().into_iter().flat_map(Guests::used);
        used.map(|(key, used)| (super::handle(&key), used)).collect()
    }

    async fn wanted(&self, handle: &Handle) -> Result<Option<String>> {
        let uuid = uuid(handle)?;
        Ok(self.guests().and_then(|guests| guests.wanted(&uuid)))
    }

    fn keep(&self, handle: &Handle, used: &UsedEnvironment) {
        if let (Some(guests), Ok(uuid)) = (self.guests(), uuid(handle)) {
            guests.carried(&uuid, used);
        }
    }
}

#[async_trait]
impl Places for Pool {
    async fn places(&self, key: &str) -> Result<Vec<Place>> {
        let (_, vm) = self.known(key).await?;
        let port = vm.other_config.get(PORT).and_then(|text| text.parse().ok());
        let port = port.or_else(|| self.guests().and_then(|guests| guests.port(key)));
        Ok(self.addresses_of(&vm).await?.into_iter().map(|address| Place { host: address.ip, port }).collect())
    }

    async fn missing(&self, key: &str) -> Option<String> {
        let (_, vm) = self.known(key).await.ok()?;
        self.why_no_address(&vm).await.ok().map(str::to_owned)
    }
}

#[async_trait]
impl Exec for XcpngDriver {
    async fn exec(&self, handle: &Handle, program: &Program) -> Result<Ended> {
        let uuid = uuid(handle)?;
        let guests = self.0.guests().ok_or_else(|| Error::new(Code::DriverUnsupported, "guests are not entered here"))?;
        let (vm, run) = self.0.running(&uuid).await?;
        guests.exec(&Machine { key: &uuid, name: &vm.name_label, run }, program, &*self.0).await
    }
}
