//! The objects of a script: every one can be computed from the seed and its number.

use bytes::Bytes;
use casd::content::{CHUNK, CHUNK_LEN, Chunk, Manifest, ManifestBuilder, ObjectId, Place};
use casd::store::NewObject;
use casd_tests::corpus;

/// Objects of different shapes.
pub(crate) const PLAIN: usize = 9;

/// Tiny objects with long names: entered together, they make the journal long.
pub(crate) const CROWD: usize = 128;

/// All objects.
pub(crate) const ALL: usize = PLAIN + CROWD;

/// The object that a check adds and removes, to see whether the store goes on.
pub(crate) const PROBE: usize = ALL;

/// The length of the names of the crowd.
const LONG_NAME: usize = 1000;

/// An object as it must be found.
pub(crate) struct Object {
    pub(crate) id: ObjectId,
    pub(crate) length: u64,
    pub(crate) name: Option<String>,
    /// In order, those of zeros too.
    pub(crate) chunks: Vec<Chunk>,
    /// There is none for a single chunk.
    pub(crate) manifest: Option<Manifest>,
}

/// A piece of an object's content.
#[derive(Clone, Copy)]
enum Piece {
    /// So many bytes that are of this object alone.
    Own(usize),
    /// A whole chunk that other objects have as well, at the same place.
    Shared,
    /// A whole chunk of zeros.
    Zeros,
}

fn pieces(number: usize) -> &'static [Piece] {
    use Piece::{Own, Shared, Zeros};
    match number {
        0 => &[Own(100)],
        1 => &[Own(3584)],
        2 => &[Own(3585)],
        3 => &[Own(300_000)],
        4 => &[Zeros],
        5 => &[Shared, Shared, Own(1000)],
        6 => &[Shared, Shared, Own(CHUNK)],
        7 => &[Shared, Zeros, Own(5000)],
        8 => &[Zeros, Zeros],
        PROBE => &[Own(77_777)],
        _ => &[Own(40)],
    }
}

impl Object {
    /// Object `number` of the script of `seed`.
    pub(crate) fn new(seed: u64, number: usize) -> Result<Self, String> {
        let pieces = pieces(number);
        let mut chunks = Vec::new();
        for (index, piece) in (0u64..).zip(pieces) {
            let of =
                |what: u64, length| corpus::bytes(seed.wrapping_mul(1_000_003).wrapping_add(what), length);
            let bytes = match piece {
                Piece::Own(length) => of(1000 + 10 * number as u64 + index, *length),
                Piece::Shared => of(index, CHUNK),
                Piece::Zeros => vec![0; CHUNK],
            };
            let place = if pieces.len() == 1 { Place::Root } else { Place::At(index * CHUNK_LEN) };
            chunks.push(Chunk::compute(place, Bytes::from(bytes)).map_err(|error| error.to_string())?);
        }
        let length = chunks.iter().map(|chunk| chunk.bytes().len() as u64).sum();
        let manifest = (chunks.len() > 1).then(|| manifest(&chunks)).transpose()?;
        let id = match (&manifest, &chunks[..]) {
            (Some(manifest), _) => manifest.id(),
            (None, [only]) => only.id().whole_object(Place::Root).ok_or("a single chunk is an object")?,
            (None, _) => return Err("an object has chunks".to_owned()),
        };
        let name = (PLAIN..ALL).contains(&number).then(|| format!("crowd {number:0LONG_NAME$}"));
        Ok(Self { id, length, name, chunks, manifest })
    }

    /// What a commit is given.
    pub(crate) fn to_enter(&self, uid: u32, now: u64) -> NewObject {
        let new = NewObject::new(self.id, self.length, now);
        NewObject { pin: Some(uid), name: self.name.clone(), ..new }
    }

    /// The chunks that are stored: those of a manifest's zeros are not.
    pub(crate) fn stored(&self) -> impl Iterator<Item = &Chunk> {
        self.chunks.iter().filter(|chunk| self.manifest.is_none() || !chunk.is_zero())
    }
}

fn manifest(chunks: &[Chunk]) -> Result<Manifest, String> {
    let mut builder = ManifestBuilder::new();
    for chunk in chunks {
        builder.push(chunk).map_err(|error| error.to_string())?;
    }
    builder.finish().map_err(|error| error.to_string())
}

/// All objects of a seed, by number.
pub(crate) fn all(seed: u64) -> Result<Vec<Object>, String> {
    (0..ALL).map(|number| Object::new(seed, number)).collect()
}
