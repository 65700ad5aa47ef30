//! The registry of drivers: the one place of the daemon that names them.

use crate::{
    Config,
    connections::{Access, Maker},
    environments,
    service::Connected,
};
use std::sync::Arc;
use uuid::Uuid;
use vmoon_core::{
    ConnectionId, Result,
    connection::{Connection, LOCAL},
    driver::Driver,
};
use vmoon_driver_lua::{LuaConfig, LuaDriver};
use vmoon_driver_xcpng::{Keys, XcpngConfig, XcpngDriver};

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

/// Who makes the drivers of the connections that users add.
pub(crate) fn makers() -> Vec<Arc<dyn Maker>> {
    vec![Arc::new(Xcpng)]
}

/// Makes the drivers of XCP-ng and XenServer pools.
struct Xcpng;

impl Maker for Xcpng {
    fn kind(&self) -> &'static str {
        "xcpng"
    }

    fn make(&self, connection: &Connection, access: Access) -> Result<Arc<dyn Driver>> {
        let user = connection.user.clone().unwrap_or_else(|| "root".into());
        let driver = XcpngDriver::new(XcpngConfig { uri: connection.uri.clone(), user, keys: Arc::new(access) })?;
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
