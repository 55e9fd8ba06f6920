//! A screen, as RFB's raw rectangles fill it. What a VM's display says is not trusted: sizes are bounded.

use png::{BitDepth, ColorType, Encoder};

/// 8K, and as high as wide.
const MAX_SIDE: u16 = 8192;
/// 8K: 127 MiB.
const MAX_PIXELS: usize = 7680 * 4320;
/// Red, green, blue, and whether it was drawn.
pub(super) const PIXEL: usize = 4;
const DRAWN: u8 = 0xff;

pub(super) struct Screen {
    width: u16,
    height: u16,
    pixels: Vec<u8>,
    missing: usize,
}

#[derive(Clone, Copy, Debug)]
pub(super) struct Area {
    pub(super) x: u16,
    pub(super) y: u16,
    pub(super) width: u16,
    pub(super) height: u16,
}

#[derive(Debug, thiserror::Error)]
pub(super) enum ScreenError {
    #[error("a screen of {0} by {1} pixels is none")]
    Size(u16, u16),
    #[error("{0:?} is not within the screen")]
    Outside(Area),
    #[error("write PNG")]
    Png(#[source] png::EncodingError),
}

impl Screen {
    pub(super) fn new(width: u16, height: u16) -> Result<Self, ScreenError> {
        let pixels = usize::from(width) * usize::from(height);
        if pixels == 0 || pixels > MAX_PIXELS || width.max(height) > MAX_SIDE {
            return Err(ScreenError::Size(width, height));
        }
        Ok(Self { width, height, pixels: vec![0; pixels * PIXEL], missing: pixels })
    }

    /// Something was drawn everywhere.
    pub(super) fn is_whole(&self) -> bool {
        self.missing == 0
    }

    pub(super) fn check(&self, area: Area) -> Result<(), ScreenError> {
        let ends =
            |start: u16, length: u16, all: u16| start.checked_add(length).is_some_and(|end| end <= all);
        if ends(area.x, area.width, self.width) && ends(area.y, area.height, self.height) {
            Ok(())
        } else {
            Err(ScreenError::Outside(area))
        }
    }

    /// One row of an area that was checked: `row` counts from the area's top. The fourth byte of each pixel says nothing.
    pub(super) fn draw(&mut self, area: Area, row: u16, colours: &[u8]) {
        let line = usize::from(area.y) + usize::from(row);
        let start = (line * usize::from(self.width) + usize::from(area.x)) * PIXEL;
        let end = start + usize::from(area.width) * PIXEL;
        let pixels = self.pixels[start..end].chunks_exact_mut(PIXEL);
        for (pixel, colour) in pixels.zip(colours.chunks_exact(PIXEL)) {
            self.missing -= usize::from(pixel[3] != DRAWN);
            pixel[..3].copy_from_slice(&colour[..3]);
            pixel[3] = DRAWN;
        }
    }

    pub(super) fn png(&self) -> Result<Vec<u8>, ScreenError> {
        let mut file = Vec::new();
        let mut encoder = Encoder::new(&mut file, self.width.into(), self.height.into());
        encoder.set_color(ColorType::Rgb);
        encoder.set_depth(BitDepth::Eight);
        let colours: Vec<u8> =
            self.pixels.chunks_exact(PIXEL).flat_map(|pixel| &pixel[..3]).copied().collect();
        let written = encoder.write_header().and_then(|mut png| png.write_image_data(&colours));
        written.map_err(ScreenError::Png)?;
        Ok(file)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_screen_is_whole_when_all_of_it_was_drawn() {
        let mut screen = Screen::new(3, 2).unwrap();
        let left = Area { x: 0, y: 0, width: 2, height: 2 };
        let right = Area { x: 2, y: 0, width: 1, height: 2 };
        for row in 0..2 {
            screen.draw(left, row, &[1, 2, 3, 0, 4, 5, 6, 255]);
            screen.draw(left, row, &[1, 2, 3, 0, 4, 5, 6, 255]);
        }
        assert!(!screen.is_whole());
        screen.draw(right, 0, &[7, 8, 9, 0]);
        screen.draw(right, 1, &[7, 8, 9, 0]);
        assert!(screen.is_whole());
        let png = screen.png().unwrap();
        let mut reader = png::Decoder::new(std::io::Cursor::new(png)).read_info().unwrap();
        let mut colours = vec![0; reader.output_buffer_size().unwrap()];
        reader.next_frame(&mut colours).unwrap();
        assert_eq!(colours, [[1, 2, 3, 4, 5, 6, 7, 8, 9]; 2].concat());
    }

    #[test]
    fn a_size_and_an_area_are_bounded() {
        for (width, height) in [(0, 1), (1, 0), (8193, 1), (1, 65535), (8192, 8192)] {
            assert!(Screen::new(width, height).is_err(), "{width} {height}");
        }
        let screen = Screen::new(3, 2).unwrap();
        for (x, y, width, height) in
            [(3, 0, 1, 1), (0, 2, 1, 1), (1, 0, 3, 1), (65535, 0, 2, 1), (0, 1, 1, 2)]
        {
            assert!(screen.check(Area { x, y, width, height }).is_err());
        }
        assert!(screen.check(Area { x: 1, y: 1, width: 2, height: 1 }).is_ok());
    }
}
