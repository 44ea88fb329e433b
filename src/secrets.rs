//! Keys that nobody set: made once, then kept in files that only their owner can read.

use std::{
    fs::{self, OpenOptions},
    io::{self, Write},
    os::unix::fs::OpenOptionsExt,
    path::Path,
};

use anyhow::{Context, ensure};
use ring::rand::{SecureRandom, SystemRandom};

/// How many random bytes a key has.
const LENGTH: usize = 32;

/// The key kept at `path`, made there if it is missing: 64 hexadecimal digits.
///
/// # Errors
/// When it cannot be read or written, or something else is there.
pub(crate) fn kept(path: &Path) -> anyhow::Result<String> {
    let key = match fs::read_to_string(path) {
        Err(error) if error.kind() == io::ErrorKind::NotFound => {
            make(path).with_context(|| format!("a key cannot be kept in {}", path.display()))?
        }
        read => read.with_context(|| format!("{} cannot be read", path.display()))?.trim_end().to_owned(),
    };
    let right = key.len() == 2 * LENGTH && key.bytes().all(|byte| byte.is_ascii_hexdigit());
    // Never made anew in its place: with another key, what this one sealed would be lost for good.
    ensure!(right, "{} does not hold a key of {} hexadecimal digits", path.display(), 2 * LENGTH);
    Ok(key)
}

fn make(path: &Path) -> io::Result<String> {
    let mut bytes = [0; LENGTH];
    SystemRandom::new().fill(&mut bytes).map_err(|_| io::Error::other("no random bytes to be had"))?;
    let key: String = bytes.iter().map(|byte| format!("{byte:02x}")).collect();

    // There whole or not at all, whatever happens meanwhile; and on the disk before anything is sealed with it.
    let beside = path.with_extension("new");
    let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&beside)?;
    writeln!(file, "{key}")?;
    file.sync_all()?;
    fs::rename(&beside, path)?;
    fs::File::open(path.parent().unwrap_or(Path::new(".")))?.sync_all()?;
    Ok(key)
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use tempfile::TempDir;

    use super::*;

    #[test]
    fn a_key_is_made_once_and_for_its_owner_alone() {
        let directory = TempDir::new().unwrap();
        let (one, other) = (directory.path().join("one.key"), directory.path().join("other.key"));
        let key = kept(&one).unwrap();
        assert_eq!(kept(&one).unwrap(), key);
        assert_ne!(kept(&other).unwrap(), key);
        assert_eq!(fs::metadata(&one).unwrap().permissions().mode() & 0o777, 0o600);
        assert_eq!(fs::read_dir(directory.path()).unwrap().count(), 2);
    }

    #[test]
    fn what_is_no_key_is_left_alone() {
        let directory = TempDir::new().unwrap();
        let path = directory.path().join("one.key");
        for text in ["", "abc", &"g".repeat(64)] {
            fs::write(&path, text).unwrap();
            assert!(kept(&path).is_err(), "{text}");
            assert_eq!(fs::read_to_string(&path).unwrap(), text);
        }
    }
}
