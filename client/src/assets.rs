//! The stylesheet, the script and the icon. Their addresses change with them, so browsers may keep them for ever.

use std::sync::LazyLock;

use ::http::{
    HeaderValue,
    header::{CACHE_CONTROL, CONTENT_TYPE},
};
use ring::digest;
use warp::{Reply, reply::Response};

use crate::error::Error;

struct Asset {
    name: &'static str,
    media_type: &'static str,
    bytes: &'static [u8],
}

static ASSETS: [Asset; 3] = [
    Asset {
        name: "style.css",
        media_type: "text/css; charset=utf-8",
        bytes: include_bytes!("../assets/style.css"),
    },
    Asset {
        name: "app.js",
        media_type: "text/javascript; charset=utf-8",
        bytes: include_bytes!("../assets/app.js"),
    },
    Asset { name: "icon.svg", media_type: "image/svg+xml", bytes: include_bytes!("../assets/icon.svg") },
];

/// A word for all of them as they are.
static VERSION: LazyLock<String> = LazyLock::new(|| {
    let mut all = digest::Context::new(&digest::SHA256);
    for asset in &ASSETS {
        all.update(asset.bytes);
    }
    all.finish().as_ref()[..8].iter().map(|byte| format!("{byte:02x}")).collect()
});

/// Where a page finds it.
pub(crate) fn url(name: &str) -> String {
    format!("/assets/{name}?v={}", *VERSION)
}

/// `version` is the one that the page was made with: while servers are being replaced, it may be another one's.
pub(crate) fn asset(name: &str, version: Option<&str>) -> Result<Response, Error> {
    let asset = ASSETS.iter().find(|asset| asset.name == name).ok_or(Error::NotFound)?;
    let mut response = asset.bytes.into_response();
    response.headers_mut().insert(CONTENT_TYPE, HeaderValue::from_static(asset.media_type));
    let kept = match version {
        Some(version) if version == *VERSION => "public, max-age=31536000, immutable",
        _ => "no-cache",
    };
    response.headers_mut().insert(CACHE_CONTROL, HeaderValue::from_static(kept));
    Ok(response)
}
