//! Ports for processes that are stopped and started again.

use std::{
    fs::{self, File},
    net::{Ipv4Addr, TcpListener},
    ops::RangeInclusive,
};

/// Below what Linux gives to outgoing connections and to whoever asks for any port (32768 and more by default): nobody
/// gets one of these by chance while its process is down.
const RANGE: RangeInclusive<u16> = 20_000..=31_999;

/// A port on 127.0.0.1 that no other test of this machine takes meanwhile.
///
/// To ask the kernel for a free port and give it back for a process to take does not do: until that process listens, or
/// while it is down, somebody else may get it, and answer in its place.
pub(crate) struct Port {
    pub(crate) number: u16,
    /// Locked for as long as the port is in use, by whichever process.
    _lock: File,
}

impl Port {
    pub(crate) fn reserve() -> Self {
        let directory = std::env::temp_dir().join("ticketing-test-ports");
        fs::create_dir_all(&directory).unwrap();
        let random = uuid::Uuid::new_v4().as_u128() as usize % RANGE.len();
        let from_there_on = RANGE.cycle().skip(random).take(RANGE.len());
        let mut free = from_there_on.filter_map(|number| {
            let lock = File::create(directory.join(number.to_string())).unwrap();
            lock.try_lock().ok()?;
            TcpListener::bind((Ipv4Addr::LOCALHOST, number)).ok()?;
            Some(Self { number, _lock: lock })
        });
        free.next().expect("a free port")
    }
}
