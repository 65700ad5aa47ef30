//! Storage pools and their volumes.

use super::Client;
use crate::{
    error::Result,
    flags::{PoolStart, Pools, VolumeCreate, VolumeDelete, VolumeResize, Xml},
    procedure::Procedure as P,
    stream::Stream,
    types::{Pool, PoolInfo, Volume, VolumeInfo},
};
use uuid::Uuid;

impl Client {
    /// Every pool, or those of the kinds that are named.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pools(&self, which: Pools) -> Result<Vec<Pool>> {
        let (pools, _count): (_, u32) = self.quick(P::ConnectListAllStoragePools, (true, which)).await?;
        Ok(pools)
    }

    /// The pool of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn pool_named(&self, name: &str) -> Result<Pool> {
        self.quick(P::StoragePoolLookupByName, name).await
    }

    /// The pool with this UUID.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn pool(&self, uuid: Uuid) -> Result<Pool> {
        self.quick(P::StoragePoolLookupByUuid, uuid).await
    }

    /// The pool that a volume belongs to.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn pool_of(&self, volume: &Volume) -> Result<Pool> {
        self.quick(P::StoragePoolLookupByVolume, volume).await
    }

    /// The pool whose folder or device this is.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn pool_at(&self, path: &str) -> Result<Pool> {
        self.quick(P::StoragePoolLookupByTargetPath, path).await
    }

    /// Stores the definition of a pool.
    ///
    /// # Errors
    /// What libvirt finds wrong with it.
    pub async fn pool_define(&self, xml: &str) -> Result<Pool> {
        self.quick(P::StoragePoolDefineXml, (xml, 0_u32)).await
    }

    /// Starts a pool that is not stored.
    ///
    /// # Errors
    /// What libvirt finds wrong with it.
    pub async fn pool_create(&self, xml: &str, how: PoolStart) -> Result<Pool> {
        self.slow(P::StoragePoolCreateXml, (xml, how)).await
    }

    /// Makes what a pool stands on: its folder.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_build(&self, pool: &Pool) -> Result<()> {
        self.slow(P::StoragePoolBuild, (pool, 0_u32)).await
    }

    /// Starts it.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_start(&self, pool: &Pool, how: PoolStart) -> Result<()> {
        self.slow(P::StoragePoolCreate, (pool, how)).await
    }

    /// Stops it; its volumes stay where they are.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_stop(&self, pool: &Pool) -> Result<()> {
        self.slow(P::StoragePoolDestroy, pool).await
    }

    /// Forgets its definition.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_undefine(&self, pool: &Pool) -> Result<()> {
        self.quick(P::StoragePoolUndefine, pool).await
    }

    /// Looks again at what is in it: needed when somebody else has put a file there.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_refresh(&self, pool: &Pool) -> Result<()> {
        self.slow(P::StoragePoolRefresh, (pool, 0_u32)).await
    }

    /// Its size and fill.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_info(&self, pool: &Pool) -> Result<PoolInfo> {
        self.quick(P::StoragePoolGetInfo, pool).await
    }

    /// Its definition; with [`Xml::INACTIVE`] the stored one.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_xml(&self, pool: &Pool, what: Xml) -> Result<String> {
        // For pools "inactive" is another bit (`virStorageXMLFlags`).
        self.quick(P::StoragePoolGetXmlDesc, (pool, u32::from(what.contains(Xml::INACTIVE)))).await
    }

    /// Whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_autostart(&self, pool: &Pool) -> Result<bool> {
        self.quick(P::StoragePoolGetAutostart, pool).await
    }

    /// Says whether it starts with the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn set_pool_autostart(&self, pool: &Pool, on: bool) -> Result<()> {
        self.quick(P::StoragePoolSetAutostart, (pool, on)).await
    }

    /// Whether it is started.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn pool_is_active(&self, pool: &Pool) -> Result<bool> {
        self.quick(P::StoragePoolIsActive, pool).await
    }

    /// Its volumes, as of when it was last looked at.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volumes(&self, pool: &Pool) -> Result<Vec<Volume>> {
        let (volumes, _count): (_, u32) = self.quick(P::StoragePoolListAllVolumes, (pool, true, 0_u32)).await?;
        Ok(volumes)
    }

    /// The volume of this name.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn volume_named(&self, pool: &Pool, name: &str) -> Result<Volume> {
        self.quick(P::StorageVolLookupByName, (pool, name)).await
    }

    /// The volume at this path, in any pool.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn volume_at(&self, path: &str) -> Result<Volume> {
        self.quick(P::StorageVolLookupByPath, path).await
    }

    /// The volume with this key, in any pool.
    ///
    /// # Errors
    /// One for which [`crate::Error::is_not_found`] holds if there is none.
    pub async fn volume_with_key(&self, key: &str) -> Result<Volume> {
        self.quick(P::StorageVolLookupByKey, key).await
    }

    /// Makes a volume.
    ///
    /// # Errors
    /// [`crate::ErrorCode::STORAGE_VOL_EXIST`] if the name is taken.
    pub async fn volume_create(&self, pool: &Pool, xml: &str, how: VolumeCreate) -> Result<Volume> {
        self.slow(P::StorageVolCreateXml, (pool, xml, how)).await
    }

    /// Makes a volume that is a full copy of another.
    ///
    /// # Errors
    /// [`crate::ErrorCode::STORAGE_VOL_EXIST`] if the name is taken.
    pub async fn volume_create_from(&self, pool: &Pool, xml: &str, original: &Volume, how: VolumeCreate) -> Result<Volume> {
        self.slow(P::StorageVolCreateXmlFrom, (pool, xml, original, how)).await
    }

    /// Deletes a volume.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_delete(&self, volume: &Volume, how: VolumeDelete) -> Result<()> {
        self.slow(P::StorageVolDelete, (volume, how)).await
    }

    /// Makes it this many bytes large.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_resize(&self, volume: &Volume, bytes: u64, how: VolumeResize) -> Result<()> {
        self.slow(P::StorageVolResize, (volume, bytes, how)).await
    }

    /// Writes into it: `length` bytes from `offset` on; 0 for as many as come. What is written is kept when shutting down the stream has succeeded.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_upload(&self, volume: &Volume, offset: u64, length: u64) -> Result<Stream> {
        let ((), stream) = self.stream(P::StorageVolUpload, (volume, offset, length, 0_u32)).await?;
        Ok(stream)
    }

    /// Reads from it: `length` bytes from `offset` on; 0 for all.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_download(&self, volume: &Volume, offset: u64, length: u64) -> Result<Stream> {
        let ((), stream) = self.stream(P::StorageVolDownload, (volume, offset, length, 0_u32)).await?;
        Ok(stream)
    }

    /// Its path on the host.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_path(&self, volume: &Volume) -> Result<String> {
        self.quick(P::StorageVolGetPath, volume).await
    }

    /// Its description.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_xml(&self, volume: &Volume) -> Result<String> {
        self.quick(P::StorageVolGetXmlDesc, (volume, 0_u32)).await
    }

    /// Its size.
    ///
    /// # Errors
    /// Those of a call.
    pub async fn volume_info(&self, volume: &Volume) -> Result<VolumeInfo> {
        self.quick(P::StorageVolGetInfo, volume).await
    }
}
