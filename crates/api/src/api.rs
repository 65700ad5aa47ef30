//! `trait Api`: what a front end sees of vmoon. Two things implement it: the daemon's service in process, and the client.

use crate::{
    Attachment, EventStream,
    files::{FileEntry, Transfer},
    requests::*,
    views::*,
};
use async_trait::async_trait;
use vmoon_core::{
    Result,
    ability::{Address, DisplayOffer, Snapshot},
    event::Event,
    hosts::Place,
    package::{CacheInfo, EnvironmentInfo, FoundRock, HistoryEntry, PackagePlan, ProfileInfo, RockInfo, ServerInfo},
    raw::{RawAnswer, RawTask},
};

macro_rules! api {
    ($($name:ident($request:ty) -> $response:ty: $method:ident $path:literal $summary:literal;)*) => {
        /// Everything that can be asked of the daemon. The errors are those of `docs/reference/errors.md`.
        #[async_trait]
        pub trait Api: Send + Sync {
            $(#[doc = $summary] async fn $name(&self, request: $request) -> Result<$response>;)*

            /// Attaches to a session's stream.
            async fn attach(&self, request: Attach) -> Result<Box<dyn Attachment>>;

            /// Begins to carry one file out of a machine or into it.
            async fn transfer_file(&self, request: TransferFile) -> Result<Box<dyn Transfer>>;

            /// Follows events.
            async fn follow_events(&self, request: Events) -> Result<Box<dyn EventStream>>;
        }

        /// Answers a JSON request by the endpoint's name: the router of the daemon.
        ///
        /// # Errors
        /// Whatever the endpoint answers, and `wire.malformed` for a request that is not of its type.
        pub async fn dispatch(api: &dyn Api, name: &str, request: crate::Routed<'_>) -> Result<Vec<u8>> {
            match name {
                $(stringify!($name) => crate::route::answer(&api.$name(request.parse()?).await?),)*
                _ => Err(vmoon_core::Error::new(vmoon_core::Code::NotFound, format!("no endpoint is named {name}"))),
            }
        }

        #[async_trait]
        impl Api for crate::Client {
            $(async fn $name(&self, request: $request) -> Result<$response> {
                self.call(crate::Method::$method, $path, &request).await
            })*

            async fn attach(&self, request: Attach) -> Result<Box<dyn Attachment>> {
                self.open_stream(request).await
            }

            async fn transfer_file(&self, request: TransferFile) -> Result<Box<dyn Transfer>> {
                self.open_file(request).await
            }

            async fn follow_events(&self, request: Events) -> Result<Box<dyn EventStream>> {
                self.open_events(request).await
            }
        }
    };
}

crate::with_endpoints!(api);
