//! Named points that tests stop the daemon at. In the product every point is passed at once.

use std::{future::Future, pin::Pin, sync::Arc};

/// Waits at a named point.
type Point = dyn Fn(&str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync;

/// The points of one daemon: before and after every write of the store and every call of a driver.
#[derive(Clone, Default)]
pub struct Hooks(Option<Arc<Point>>);

impl Hooks {
    /// Hooks that ask `point` at each point; a future that never ends cuts the daemon off there, as a kill would.
    pub fn new(point: impl Fn(&str) -> Pin<Box<dyn Future<Output = ()> + Send>> + Send + Sync + 'static) -> Self {
        Self(Some(Arc::new(point)))
    }

    /// Passes a point.
    pub async fn at(&self, name: &str) {
        if let Some(point) = &self.0 {
            point(name).await;
        }
    }
}
