//! `--screenshot`: one picture of the screen, taken as a viewer that only looks.

use std::path::Path;
use std::time::Duration;

use anyhow::Context as _;
use bytes::{Buf as _, BufMut as _, Bytes, BytesMut};
use horcrux_proto::rfb::{SECURITY_NONE, VERSION_BYTES, VERSIONS, client, server};
use horcrux_transport::files;

use super::connection::{Asked, Console, Heard, Inlet, Outlet};
use super::screen::{Area, PIXEL, Screen};
use crate::App;
use crate::failure::Failure;
use crate::session::Session;

/// A screen comes in less than a second; one that is slow to draw isn't given up at once.
const PATIENCE: Duration = Duration::from_secs(30);
/// No more of a text that isn't wanted is read.
const MAX_TEXT: u32 = 1 << 20;
const NEWEST: &[u8; VERSION_BYTES] = VERSIONS[VERSIONS.len() - 1];
const RAW: i32 = 0;
/// 32 bits of 24 used, little-endian, true colour; red, green and blue of 8 bits each, red first in memory.
const FORMAT: [u8; 16] = [32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 0, 8, 16, 0, 0, 0];

pub(super) async fn run(app: &App, session: &Session, asked: &Asked<'_>, path: &Path) -> Result<(), Failure> {
    let Console { mut to, mut from, .. } = Console::open(app, session, asked, |text| app.say(text)).await?;
    let taken = tokio::time::timeout(PATIENCE, take(&mut to, &mut Stream::new(&mut from))).await;
    to.close().await;
    let late = |_| Failure::Unavailable("the VM's screen didn't come in time".to_owned());
    let picture = taken.map_err(late)??.png().context("make a picture of the VM's screen")?;
    files::write_private(path, &picture).with_context(|| format!("write {}", path.display()))?;
    Ok(())
}

async fn take(to: &mut Outlet, from: &mut Stream<'_>) -> Result<Screen, Failure> {
    from.take(VERSION_BYTES).await?;
    to.bytes(Bytes::from_static(NEWEST)).await?;
    let offered = from.u8().await?;
    let offered = from.take(offered.into()).await?;
    if !offered.contains(&SECURITY_NONE) {
        return Err(Failure::Refused("the VM's screen asks for a password of its own".to_owned()));
    }
    to.bytes(Bytes::from_static(&[SECURITY_NONE])).await?;
    if from.u32().await? != 0 {
        return Err(Failure::Refused("the VM's screen refused".to_owned()));
    }
    // Others stay where they are.
    to.bytes(Bytes::from_static(&[1])).await?;
    let (width, height) = (from.u16().await?, from.u16().await?);
    let mut screen = Screen::new(width, height).context("look at the VM's screen")?;
    from.skip(16).await?;
    from.text().await?;
    let mut asked = BytesMut::new();
    asked.put_slice(&[client::SET_PIXEL_FORMAT, 0, 0, 0]);
    asked.put_slice(&FORMAT);
    asked.put_slice(&[client::SET_ENCODINGS, 0, 0, 1]);
    asked.put_i32(RAW);
    to.bytes(asked.freeze()).await?;
    // What is missing after the whole was asked for comes with what has changed since.
    for incremental in std::iter::once(0).chain(std::iter::repeat(1)) {
        let mut asked = BytesMut::new();
        asked.put_slice(&[client::UPDATE_REQUEST, incremental, 0, 0, 0, 0]);
        asked.put_u16(width);
        asked.put_u16(height);
        to.bytes(asked.freeze()).await?;
        update(from, &mut screen).await?;
        if screen.is_whole() {
            break;
        }
    }
    Ok(screen)
}

/// Up to the end of the next update.
async fn update(from: &mut Stream<'_>, screen: &mut Screen) -> Result<(), Failure> {
    loop {
        match from.u8().await? {
            server::UPDATE => break,
            server::COLOUR_MAP => {
                from.skip(3).await?;
                let colours = from.u16().await?;
                from.skip(usize::from(colours) * 6).await?;
            }
            server::BELL => {}
            server::CUT_TEXT => {
                from.skip(3).await?;
                from.text().await?;
            }
            other => {
                return Err(Failure::Refused(format!(
                    "the VM's screen sent message {other}, which is unknown"
                )));
            }
        }
    }
    from.skip(1).await?;
    for _ in 0..from.u16().await? {
        let area = Area {
            x: from.u16().await?,
            y: from.u16().await?,
            width: from.u16().await?,
            height: from.u16().await?,
        };
        if from.u32().await?.cast_signed() != RAW {
            return Err(Failure::Refused(
                "the VM's screen sent an encoding that was not asked for".to_owned(),
            ));
        }
        screen.check(area).context("draw the VM's screen")?;
        for row in 0..area.height {
            let colours = from.take(usize::from(area.width) * PIXEL).await?;
            screen.draw(area, row, &colours);
        }
    }
    Ok(())
}

/// What the VM's display says, in order. One message of the console is kept at most, and what is asked for.
struct Stream<'a> {
    from: &'a mut Inlet,
    heard: BytesMut,
}

impl<'a> Stream<'a> {
    fn new(from: &'a mut Inlet) -> Self {
        Self { from, heard: BytesMut::new() }
    }

    async fn take(&mut self, length: usize) -> Result<BytesMut, Failure> {
        while self.heard.len() < length {
            self.more().await?;
        }
        Ok(self.heard.split_to(length))
    }

    async fn skip(&mut self, mut length: usize) -> Result<(), Failure> {
        while length > 0 {
            if self.heard.is_empty() {
                self.more().await?;
            }
            let skipped = length.min(self.heard.len());
            self.heard.advance(skipped);
            length -= skipped;
        }
        Ok(())
    }

    /// A text that isn't wanted, with its length before it.
    async fn text(&mut self) -> Result<(), Failure> {
        let length = self.u32().await?;
        if length > MAX_TEXT {
            return Err(Failure::Refused(format!("the VM's screen sent a text of {length} bytes")));
        }
        self.skip(usize::try_from(length).unwrap_or(usize::MAX)).await
    }

    async fn u8(&mut self) -> Result<u8, Failure> {
        Ok(self.take(1).await?.get_u8())
    }

    async fn u16(&mut self) -> Result<u16, Failure> {
        Ok(self.take(2).await?.get_u16())
    }

    async fn u32(&mut self) -> Result<u32, Failure> {
        Ok(self.take(4).await?.get_u32())
    }

    async fn more(&mut self) -> Result<(), Failure> {
        match self.from.next().await? {
            Some(Heard::Bytes(bytes)) => self.heard.extend_from_slice(&bytes),
            Some(Heard::Words(_)) => {}
            Some(Heard::Restarted) => {
                return Err(Failure::Unavailable("the VM was moved meanwhile".to_owned()));
            }
            None => {
                return Err(Failure::Refused("the console ended before the picture was there".to_owned()));
            }
        }
        Ok(())
    }
}
