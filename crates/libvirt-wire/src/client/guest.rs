//! What is inside a domain: its console, its screen, its agent.

use super::Client;
use crate::{
    error::{Error, Result},
    flags::{Console, Graphics, GuestInfo, Password},
    procedure::Procedure as P,
    stream::Stream,
    types::{Domain, GuestInterface, Params},
    xdr::Malformed,
};
use std::{os::fd::OwnedFd, time::Duration};

/// Who is asked for addresses (`virDomainInterfaceAddressesSource`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Addresses {
    /// The DHCP server of libvirt's networks: what was given out, whether or not it is used.
    Lease = 0,
    /// The guest agent.
    Agent = 1,
    /// The host's table of neighbours.
    Arp = 2,
}

impl Client {
    /// Opens a console of a running domain: the first serial one, or the one with this alias.
    ///
    /// # Errors
    /// Those of a call; [`crate::ErrorCode::OPERATION_FAILED`] if somebody has it and [`Console::FORCE`] is not given.
    pub async fn console(&self, domain: &Domain, device: Option<&str>, how: Console) -> Result<Stream> {
        let ((), stream) = self.stream(P::DomainOpenConsole, (domain, device, how)).await?;
        Ok(stream)
    }

    /// Opens a channel of a running domain: the first, or the one with this alias or target name.
    ///
    /// # Errors
    /// As for [`Client::console`].
    pub async fn channel(&self, domain: &Domain, name: Option<&str>, how: Console) -> Result<Stream> {
        let ((), stream) = self.stream(P::DomainOpenChannel, (domain, name, how)).await?;
        Ok(stream)
    }

    /// A picture of a screen, by its number: its media type (`image/png`, `image/x-portable-pixmap`) and its bytes, to be read to the end.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn screenshot(&self, domain: &Domain, screen: u32) -> Result<(String, Stream)> {
        let (mime, stream): (Option<String>, _) = self.stream(P::DomainScreenshot, (domain, screen, 0_u32)).await?;
        Ok((mime.unwrap_or_default(), stream))
    }

    /// A socket that is connected to a graphics server of the domain (VNC or SPICE, by its number), through the daemon: no port, no path, no rights to them.
    /// Only where the daemon is on this computer.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn open_graphics(&self, domain: &Domain, index: u32, how: Graphics) -> Result<OwnedFd> {
        let procedure = P::DomainOpenGraphicsFd;
        let mut reply = self.slow_reply(procedure, (domain, index, how)).await?;
        match (reply.descriptors.pop(), reply.descriptors.is_empty()) {
            (Some(descriptor), true) => Ok(descriptor),
            _ => {
                let why = Malformed { what: "not exactly one file descriptor", at: 0 };
                Err(Error::Malformed { procedure: procedure.name(), why })
            }
        }
    }

    /// The interfaces of a running domain with their addresses, as this source knows them.
    ///
    /// # Errors
    /// [`crate::ErrorCode::AGENT_UNRESPONSIVE`] if the agent is asked and does not answer.
    pub async fn addresses(&self, domain: &Domain, from: Addresses) -> Result<Vec<GuestInterface>> {
        self.slow(P::DomainInterfaceAddresses, (domain, from as u32, 0_u32)).await
    }

    /// What the guest agent tells: names such as `os.pretty-name`, `hostname`, `fs.0.mountpoint`.
    ///
    /// # Errors
    /// As for [`Client::addresses`].
    pub async fn guest_info(&self, domain: &Domain, what: GuestInfo) -> Result<Params> {
        self.slow(P::DomainGetGuestInfo, (domain, what, 0_u32)).await
    }

    /// The guest's name: from the leases (1) or from the agent (2).
    ///
    /// # Errors
    /// [`crate::ErrorCode::NO_HOSTNAME`] if none is known.
    pub async fn guest_hostname(&self, domain: &Domain, from: u32) -> Result<String> {
        self.slow(P::DomainGetHostname, (domain, from)).await
    }

    /// Says something to the guest agent and returns its answer, both JSON. libvirt keeps question and answer together, and waits this long for it,
    /// rounded up to seconds.
    ///
    /// # Errors
    /// [`crate::ErrorCode::AGENT_UNRESPONSIVE`]; an error of the agent's own is [`crate::ErrorCode::INTERNAL_ERROR`].
    pub async fn agent_command(&self, domain: &Domain, command: &str, wait: Duration) -> Result<String> {
        let procedure = P::QemuDomainAgentCommand;
        let seconds = i32::try_from(wait.as_secs() + u64::from(wait.subsec_nanos() > 0)).unwrap_or(i32::MAX).max(1);
        let answer: Option<String> = self.slow(procedure, (domain, command, seconds, 0_u32)).await?;
        answer.ok_or(Error::Malformed { procedure: procedure.name(), why: Malformed { what: "no answer in the answer", at: 0 } })
    }

    /// Has the agent write out and freeze file systems: those mounted there, or all. Returns how many.
    ///
    /// # Errors
    /// As for [`Client::addresses`].
    pub async fn freeze(&self, domain: &Domain, mounts: &[String]) -> Result<u32> {
        let count: i32 = self.slow(P::DomainFsfreeze, (domain, mounts, 0_u32)).await?;
        Ok(count.max(0).cast_unsigned())
    }

    /// Lets them go on.
    ///
    /// # Errors
    /// As for [`Client::addresses`].
    pub async fn thaw(&self, domain: &Domain, mounts: &[String]) -> Result<u32> {
        let count: i32 = self.slow(P::DomainFsthaw, (domain, mounts, 0_u32)).await?;
        Ok(count.max(0).cast_unsigned())
    }

    /// Has the agent set a password.
    ///
    /// # Errors
    /// As for [`Client::addresses`].
    pub async fn set_password(&self, domain: &Domain, user: &str, password: &str, how: Password) -> Result<()> {
        self.slow(P::DomainSetUserPassword, (domain, Some(user), Some(password), how)).await
    }

    /// Presses keys together for this many milliseconds, by Linux key codes.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn send_keys(&self, domain: &Domain, keys: &[u32], hold_ms: u32) -> Result<()> {
        const LINUX: u32 = 0;
        self.slow(P::DomainSendKey, (domain, LINUX, hold_ms, keys, 0_u32)).await
    }
}
