//! Compressed files: one row a compression, read and written without C.
//!
//! What is written is pushed out at each pause, and whenever `HELD` bytes have come together: so much of the
//! text is lost at most if this process is killed.

use std::{
    cell::RefCell,
    io::{self, BufRead, BufReader, Cursor, Read, Write},
    mem::take,
    path::{Path, PathBuf},
    rc::Rc,
};

use flate2::{Compression as Level, bufread::MultiGzDecoder, write::GzEncoder};
use ruzstd::{
    decoding::{
        BlockDecodingStrategy, FrameDecoder,
        errors::{FrameDecoderError, ReadFrameHeaderError},
    },
    encoding::{CompressionLevel, FrameCompressor, MatchGeneratorDriver},
};

use crate::{
    event::{Event, fork::Fork},
    output::{sink::Sink, writer::Unwritten},
};

/// Bytes of text that are held back at most.
const HELD: usize = 128 << 10;

/// One compression.
pub struct Compression {
    /// The last ending of such files, without the dot.
    pub ending: &'static str,
    /// How such files begin.
    magic: &'static [u8],
    /// Writes onto a buffered writer.
    write: fn(Box<dyn Write>) -> Box<dyn Packing>,
    /// Reads from a source that begins with `magic`.
    read: fn(Source) -> Box<dyn Read>,
}

/// Every compression.
pub static COMPRESSIONS: [Compression; 2] = [
    Compression {
        ending: "gz",
        magic: &[0x1f, 0x8b],
        // Beyond this level a tenth is won for half the speed.
        write: |to| Box::new(GzEncoder::new(to, Level::new(3))),
        read: |source| Box::new(Members(MultiGzDecoder::new(source))),
    },
    Compression {
        ending: "zst",
        magic: &[0x28, 0xb5, 0x2f, 0xfd],
        write: |to| Box::new(Frames::new(to)),
        read: |source| Box::new(Unframed { source, decoder: FrameDecoder::new(), inside: false }),
    },
];

impl Compression {
    /// The compression that a file's ending names, and the file's name without that ending.
    #[must_use]
    pub fn of_file(path: &Path) -> Option<(&'static Self, PathBuf)> {
        let ending = path.extension()?;
        let found = COMPRESSIONS.iter().find(|compression| compression.ending == ending)?;
        Some((found, path.with_extension("")))
    }

    /// Every ending, as messages and the help name them.
    #[must_use]
    pub fn all_endings() -> String {
        let endings = COMPRESSIONS.iter().map(|compression| format!(".{}", compression.ending));
        endings.collect::<Vec<_>>().join(" or ")
    }

    /// Compresses what the sink that `open` makes writes, onto `to`; what is held back meanwhile counts as
    /// unwritten.
    pub(super) fn sink(
        &self,
        to: Box<dyn Write>,
        unwritten: Unwritten,
        open: impl FnOnce(Box<dyn Write>) -> Box<dyn Sink>,
    ) -> Box<dyn Sink> {
        let packed =
            Rc::new(RefCell::new(Packed { packing: (self.write)(to), held: 0, unwritten }));
        let sink = open(Box::new(Shared(Rc::clone(&packed))));
        Box::new(Compressed { sink, packed })
    }
}

/// Takes text, and writes it compressed.
trait Packing: Write {
    /// Writes what ends such a file.
    fn end(&mut self) -> io::Result<()>;
}

impl<W: Write> Packing for GzEncoder<W> {
    fn end(&mut self) -> io::Result<()> {
        self.try_finish()?;
        self.get_mut().flush()
    }
}

/// A file of Zstandard frames, each of which is whole in itself.
struct Frames {
    to: Box<dyn Write>,
    text: Vec<u8>,
    compressor: FrameCompressor<Cursor<Vec<u8>>, Vec<u8>, MatchGeneratorDriver>,
}

impl Frames {
    fn new(to: Box<dyn Write>) -> Self {
        let compressor = FrameCompressor::new(CompressionLevel::Fastest);
        Self { to, text: Vec::new(), compressor }
    }
}

impl Write for Frames {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.text.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        if !self.text.is_empty() {
            // Neither of them can fail: both are in memory.
            self.compressor.set_source(Cursor::new(take(&mut self.text)));
            self.compressor.set_drain(Vec::new());
            self.compressor.compress();
            let frame = self.compressor.take_drain().unwrap_or_default();
            self.to.write_all(&frame)?;
        }
        self.to.flush()
    }
}

impl Packing for Frames {
    fn end(&mut self) -> io::Result<()> {
        self.flush()
    }
}

/// A compressed stream under way.
struct Packed {
    packing: Box<dyn Packing>,
    /// Bytes of text since it was pushed out.
    held: usize,
    unwritten: Unwritten,
}

impl Packed {
    /// Pushes out what is held.
    fn push(&mut self, push: impl Fn(&mut dyn Packing) -> io::Result<()>) -> io::Result<()> {
        let pushed = push(self.packing.as_mut());
        self.unwritten.take(take(&mut self.held));
        pushed
    }
}

impl Write for Packed {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.held = self.held.saturating_add(bytes.len());
        self.unwritten.add(bytes.len());
        self.packing.write_all(bytes)?;
        if self.held >= HELD {
            self.flush()?;
        }
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        // Of nothing, deflate would write some bytes all the same.
        if self.held == 0 { Ok(()) } else { self.push(|packing| packing.flush()) }
    }
}

/// What a sink writes to, while [`Compressed`] waits for its end.
struct Shared(Rc<RefCell<Packed>>);

impl Write for Shared {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.borrow_mut().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        self.0.borrow_mut().flush()
    }
}

/// A sink that writes compressed.
struct Compressed {
    sink: Box<dyn Sink>,
    packed: Rc<RefCell<Packed>>,
}

impl Sink for Compressed {
    fn fork(&mut self, fork: &Fork) -> io::Result<()> {
        self.sink.fork(fork)
    }

    fn event(&mut self, event: &Event) -> io::Result<()> {
        self.sink.event(event)
    }

    fn tick(&mut self) -> io::Result<()> {
        self.sink.tick()
    }

    fn finish(&mut self) -> io::Result<()> {
        self.sink.finish()?;
        self.packed.borrow_mut().push(|packing| packing.end())
    }
}

/// Where compressed bytes come from; it notes when there are no more.
struct Source {
    from: Box<dyn BufRead>,
    ended: bool,
}

impl Source {
    /// An error of what reads from here: where there are no more bytes, that is all there is to it.
    fn explain(&self, error: io::Error) -> io::Error {
        if self.ended { io::ErrorKind::UnexpectedEof.into() } else { error }
    }
}

impl Read for Source {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        let read = self.from.read(buffer)?;
        self.ended |= read == 0 && !buffer.is_empty();
        Ok(read)
    }
}

impl BufRead for Source {
    fn fill_buf(&mut self) -> io::Result<&[u8]> {
        let bytes = self.from.fill_buf()?;
        self.ended |= bytes.is_empty();
        Ok(bytes)
    }

    fn consume(&mut self, bytes: usize) {
        self.from.consume(bytes);
    }
}

/// What the members of a gzip file hold, one after the other.
struct Members(MultiGzDecoder<Source>);

impl Read for Members {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        self.0.read(buffer).map_err(|error| self.0.get_ref().explain(error))
    }
}

/// What the frames of a Zstandard file hold, one after the other.
struct Unframed {
    source: Source,
    decoder: FrameDecoder,
    /// A frame is under way.
    inside: bool,
}

impl Unframed {
    /// Goes on by a step; returns whether there is more.
    fn step(&mut self) -> io::Result<bool> {
        let Self { source, decoder, inside } = self;
        if !*inside {
            if source.fill_buf()?.is_empty() {
                return Ok(false);
            }
            match decoder.reset(&mut *source) {
                Ok(()) => *inside = true,
                Err(FrameDecoderError::ReadFrameHeaderError(ReadFrameHeaderError::SkipFrame {
                    length,
                    ..
                })) => {
                    io::copy(&mut Read::take(source, u64::from(length)), &mut io::sink())?;
                }
                Err(error) => return Err(io::Error::other(error)),
            }
        } else if decoder.is_finished() {
            *inside = false;
            let sums = (decoder.get_checksum_from_data(), decoder.get_calculated_checksum());
            if let (Some(said), Some(found)) = sums
                && said != found
            {
                return Err(io::Error::other("a checksum is wrong"));
            }
        } else {
            let block = BlockDecodingStrategy::UptoBlocks(1);
            decoder.decode_blocks(source, block).map_err(io::Error::other)?;
        }
        Ok(true)
    }
}

impl Read for Unframed {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        while self.decoder.can_collect() == 0 {
            if !self.step().map_err(|error| self.source.explain(error))? {
                return Ok(0);
            }
        }
        self.decoder.read(buffer)
    }
}

/// Reads from `from`, and decompresses what begins like something compressed.
///
/// # Errors
/// What reading the first bytes says.
pub fn reader(mut from: impl Read + 'static) -> io::Result<Box<dyn Read>> {
    let mut head = Vec::new();
    let longest = COMPRESSIONS.iter().map(|compression| compression.magic.len()).max();
    let longest = u64::try_from(longest.unwrap_or_default()).unwrap_or_default();
    Read::take(&mut from, longest).read_to_end(&mut head)?;
    let found = COMPRESSIONS.iter().find(|compression| head.starts_with(compression.magic));
    let whole = Cursor::new(head).chain(from);
    Ok(match found {
        Some(compression) => {
            let from = Box::new(BufReader::new(whole));
            (compression.read)(Source { from, ended: false })
        }
        None => Box::new(whole),
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::output::json::Json;

    #[derive(Clone, Default)]
    struct Kept(Rc<RefCell<Vec<u8>>>);

    impl Write for Kept {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.borrow_mut().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    /// What is written for these texts, with a pause after each.
    fn pack(compression: &Compression, texts: &[&[u8]]) -> Vec<u8> {
        let kept = Kept::default();
        let to = Box::new(kept.clone());
        let packing = (compression.write)(to);
        let mut packed = Packed { packing, held: 0, unwritten: Unwritten::default() };
        for text in texts {
            packed.write_all(text).unwrap();
            packed.flush().unwrap();
        }
        packed.push(|packing| packing.end()).unwrap();
        assert_eq!(packed.unwritten.bytes(), 0);
        kept.0.take()
    }

    /// What can be read, and why there is no more.
    fn unpack(bytes: &[u8]) -> (Vec<u8>, Option<io::ErrorKind>) {
        let mut text = Vec::new();
        let mut reader = reader(Cursor::new(bytes.to_vec())).unwrap();
        let ended = reader.read_to_end(&mut text);
        (text, ended.err().map(|error| error.kind()))
    }

    #[test]
    fn files_are_known_by_their_last_ending() {
        let of = |path: &str| {
            let found = Compression::of_file(Path::new(path));
            found.map(|(compression, name)| (compression.ending, name.display().to_string()))
        };
        assert_eq!(of("a/x.json.gz"), Some(("gz", "a/x.json".to_owned())));
        assert_eq!(of("x.zst"), Some(("zst", "x".to_owned())));
        assert_eq!((of("x.json"), of(".gz"), of("gz")), (None, None, None));
    }

    #[test]
    fn a_file_that_is_cut_off_anywhere_is_read_as_far_as_it_goes() {
        let texts: Vec<Vec<u8>> =
            (0..20_u32).map(|line| format!("line {line} of it\n").into_bytes()).collect();
        let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
        let whole = texts.concat();
        for compression in &COMPRESSIONS {
            let bytes = pack(compression, &texts);
            assert_eq!(unpack(&bytes), (whole.clone(), None));
            let mut least = 0;
            // Before the magic is whole it is not known what it is.
            for end in compression.magic.len()..bytes.len() {
                let (text, error) = unpack(&bytes[..end]);
                assert!(whole.starts_with(&text), "{} {end}", compression.ending);
                assert!(text.len() >= least, "{} {end}", compression.ending);
                least = text.len();
                // Between two frames nobody can tell that there were more.
                let is_told = error == Some(io::ErrorKind::UnexpectedEof);
                assert!(is_told || error.is_none() && text.ends_with(b"\n"), "{error:?}");
            }
            assert!(least + 20 >= whole.len(), "{}: {least}", compression.ending);
        }
    }

    #[test]
    fn what_is_damaged_is_told() {
        for compression in &COMPRESSIONS {
            let mut bytes = pack(compression, &[&b"some text that is long enough".repeat(9)]);
            // The last bytes are a checksum, and in gzip the length after it.
            let place = bytes.len() - if compression.ending == "gz" { 6 } else { 2 };
            bytes[place] ^= 1;
            let error = unpack(&bytes).1;
            assert!(error.is_some_and(|kind| kind != io::ErrorKind::UnexpectedEof), "{error:?}");
        }
    }

    #[test]
    fn text_is_pushed_out_at_the_latest_when_there_is_much() {
        for compression in &COMPRESSIONS {
            let kept = Kept::default();
            let unwritten = Unwritten::default();
            let open = |to| Box::new(Json::new(to)) as Box<dyn Sink>;
            let mut sink = compression.sink(Box::new(kept.clone()), unwritten.clone(), open);
            let event: Event = serde_json::from_str(
                r#"{"type":"warning","code":"x","text":"a text of some length"}"#,
            )
            .unwrap();
            let mut written = 0;
            for _ in 0..10_000 {
                sink.event(&event).unwrap();
                written += serde_json::to_vec(&event).unwrap().len() + 1;
            }
            let (text, _) = unpack(&kept.0.borrow());
            assert!(written - text.len() <= HELD + 100, "{} of {written}", text.len());
            let held = usize::try_from(unwritten.bytes()).unwrap();
            assert!(held >= written - text.len(), "{held}");
            sink.finish().unwrap();
            assert_eq!(unwritten.bytes(), 0);
            assert_eq!(unpack(&kept.0.borrow()).0.len(), written);
        }
    }

    proptest! {
        #[test]
        fn any_text_comes_back(
            texts in prop::collection::vec(prop::collection::vec(any::<u8>(), 0..2_000), 0..8)
        ) {
            let texts: Vec<&[u8]> = texts.iter().map(Vec::as_slice).collect();
            for compression in &COMPRESSIONS {
                let bytes = pack(compression, &texts);
                let (text, error) = unpack(&bytes);
                prop_assert_eq!(error, None);
                prop_assert_eq!(text, texts.concat());
            }
        }

        #[test]
        fn any_bytes_are_read_or_refused(bytes in prop::collection::vec(any::<u8>(), 0..300)) {
            for compression in &COMPRESSIONS {
                unpack(&[compression.magic, &bytes].concat());
            }
            unpack(&bytes);
        }
    }
}
