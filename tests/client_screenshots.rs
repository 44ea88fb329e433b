//! Pictures of every page, for people to look at: `cargo test --test client_screenshots -- --ignored` writes them to
//! `target/screenshots`.

mod browser;
mod support;
mod whole;

use std::{fs, path::Path};

use browser::{
    Look, Shop,
    tour::{VARIABLES, tour},
};

#[tokio::test(flavor = "multi_thread")]
#[ignore = "makes pictures; nothing is tested"]
async fn every_page_narrow_and_wide_light_and_dark() {
    let Some(shop) = Shop::open(&VARIABLES).await else { return };
    let directory = Path::new(env!("CARGO_TARGET_TMPDIR")).with_file_name("screenshots");
    fs::create_dir_all(&directory).unwrap();
    tour(&shop, Look::default(), async |visitor, page| {
        for (width, dark) in [(375, false), (375, true), (1280, true), (1280, false)] {
            let picture = visitor.picture(Look { width, dark, ..Look::default() }).await;
            let scheme = if dark { "dark" } else { "light" };
            fs::write(directory.join(format!("{page}-{width}-{scheme}.png")), picture).unwrap();
        }
    })
    .await;
    eprintln!("written to {}", directory.display());
}
