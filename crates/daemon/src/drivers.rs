//! The registry of drivers: the one place of the daemon that names them.

use crate::{
    Config,
    connections::{Access, Maker},
    environments,
    service::Connected,
};
use std::{
    path::{Path, PathBuf},
    sync::Arc,
};
use uuid::Uuid;
use vmoon_core::{
    Code, ConnectionId, Error, Result,
    connection::{Connection, LOCAL},
    driver::Driver,
};
use vmoon_driver_libvirt::{LibvirtConfig, LibvirtDriver};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_driver_ssh::{Auth, SshConfig, SshDriver};
use vmoon_driver_xcpng::{Keys, XcpngConfig, XcpngDriver};
use vmoon_guest::Guests;
use vmoon_packages::facade::Packages;
use vmoon_sys::login::Login;

/// The connection to this computer always exists, under an id of its own in every store.
const LOCAL_ID: ConnectionId = ConnectionId::from_uuid(Uuid::from_u128(0x766d_6f6f_6e00_7000_8000_6c6f_6361_6c00));

/// Connects everything this daemon serves.
///
/// # Errors
/// Those of the drivers.
pub(crate) fn connect(config: &Config) -> Result<Vec<Connected>> {
    let lua = LuaDriver::new(LuaConfig {
        state: config.paths.state.clone(),
        host_exe: config.host_exe.clone(),
        host_args: config.host_args.clone(),
        environments: Some(Arc::new(environments::Kept::new(config.paths.state.clone()))),
    });
    let connection = Connection::new(LOCAL_ID, LOCAL, "lua", "");
    Ok(vec![Connected { connection, driver: Arc::new(lua) }])
}

/// Who makes the drivers of the connections that users add; `state` is the state directory.
pub(crate) fn makers(state: &Path, packages: Arc<Packages>) -> Vec<Arc<dyn Maker>> {
    let environments = Arc::new(environments::Carried(packages));
    let guests = Entered { dir: guests_dir(state), environments: environments.clone() };
    vec![Arc::new(Ssh(environments)), Arc::new(Libvirt { guests: guests.clone() }), Arc::new(Xcpng { guests })]
}

/// Where it is kept how guests are entered.
pub(crate) fn guests_dir(state: &Path) -> PathBuf {
    state.join("guests")
}

/// How guests are entered, and what they can be given.
#[derive(Clone)]
struct Entered {
    dir: PathBuf,
    environments: Arc<environments::Carried>,
}

impl Entered {
    /// The guests of a connection.
    fn of(&self, connection: &Connection) -> Guests {
        Guests::new(vmoon_guest::Config {
            dir: self.dir.clone(),
            connection: connection.id.to_string(),
            login: Login::from_env(),
            environments: Some(self.environments.clone()),
        })
    }
}

/// Hosts that are reached over SSH, and the environments they use.
struct Ssh(Arc<environments::Carried>);

impl Maker for Ssh {
    fn kind(&self) -> &'static str {
        "ssh"
    }

    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let login = Login::from_env();
        let secret = access.secret();
        let secret = secret.as_ref().map(|secret| secret.expose_text().map(vmoon_driver_ssh::Secret::new)).transpose()?;
        let mut auth = Auth::default();
        match &connection.identity {
            // The passphrase of a key is shown to no server.
            Some(identity) => (auth.identities, auth.passphrase) = (vec![identity.into()], secret),
            None => auth.password = secret,
        }
        let driver = SshDriver::new(SshConfig {
            id: connection.id.to_string(),
            uri: connection.uri.clone(),
            user: connection.user.clone(),
            auth,
            pins: access.fingerprint().into_iter().collect(),
            user_files: true,
            login,
            lua: None,
            environments: Some(self.0.clone()),
        })?;
        Ok(Arc::new(driver))
    }
}

/// Virtual machines under libvirt.
struct Libvirt {
    guests: Entered,
}

impl Maker for Libvirt {
    fn kind(&self) -> &'static str {
        vmoon_driver_libvirt::KIND
    }

    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        if access.secret().is_some() {
            return Err(
                Error::new(Code::Usage, "libvirt connections take no password").hint("use --identity, or the keys of your SSH agent")
            );
        }
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let config = LibvirtConfig {
            uri: connection.uri.clone(),
            user: connection.user.clone(),
            identity: connection.identity.clone(),
            runtime,
            data: vmoon_sys::paths::data_home(),
            guests: Some(self.guests.of(connection)),
        };
        Ok(Arc::new(LibvirtDriver::connect(&config)?))
    }
}

/// Makes the drivers of XCP-ng and XenServer pools.
struct Xcpng {
    guests: Entered,
}

impl Maker for Xcpng {
    fn kind(&self) -> &'static str {
        "xcpng"
    }

    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let user = connection.user.clone().unwrap_or_else(|| "root".into());
        let runtime = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
        let guests = Some(self.guests.of(connection));
        let driver = XcpngDriver::new(XcpngConfig { uri: connection.uri.clone(), user, keys: Arc::new(access), guests, runtime })?;
        Ok(Arc::new(driver))
    }
}

impl Keys for Access {
    fn password(&self) -> Option<vmoon_xapi::Password> {
        self.secret().and_then(|secret| secret.expose_text().ok().map(vmoon_xapi::Password::new))
    }

    fn fingerprint(&self) -> Option<String> {
        Access::fingerprint(self)
    }
}
