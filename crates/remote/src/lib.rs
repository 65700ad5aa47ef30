//! SSH connections and the sessions that outlive them.
