//! Addresses of known bytes, and what is taken for an address.

use super::*;

fn cids(bytes: &[u8], chunk: usize) -> [String; 2] {
    let cid = |version| address_in_chunks(&mut &*bytes, version, chunk).unwrap().cid.to_string();
    [cid(Version::V0), cid(Version::V1)]
}

/// The same bytes as in the script that asked the reference.
fn bytes(count: u64) -> Vec<u8> {
    (0..count).map(|i| ((i * i * 31 + i) % 251).to_le_bytes()[0]).collect()
}

#[test]
fn a_file_has_the_address_that_ipfs_gives_it() {
    let [v0, v1] = cids(b"hello world\n", CHUNK);
    assert_eq!(v0, "QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5o");
    assert_eq!(v1, "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4");
}

#[test]
fn the_size_and_the_plain_checksum_come_with_it() {
    let address = address(&mut &b"hello world\n"[..], Version::V1).unwrap();
    assert_eq!(address.bytes, 12);
    let sha256 = "a948904f2f0f479b8f8197694b30184b0d2ed1c1cd2a1ec0fb85d299a192a447";
    assert_eq!(address.sha256, sha256);
}

/// By `ipfs-unixfs-importer` 17.1.1 with chunks of 16 bytes.
#[test]
fn trees_of_up_to_four_levels_are_those_of_the_reference() {
    const LEAVES: u64 = 16 * 174;
    for (count, v0, v1) in [
        (
            0,
            "QmbFMke1KXqnYyBBWxB74N4c5SBnJMVAiMNRcGu6x1AwQH",
            "bafkreihdwdcefgh4dqkjv67uzcmw7ojee6xedzdetojuzjevtenxquvyku",
        ),
        (
            1,
            "QmS9JArPwa55ePgDnyg6TzX24mYTS1b1vLqWNebyVotKxQ",
            "bafkreidogqfzz75tpkmjzjke425xqcrmpcib2p5tg44hnbirumdbpl5adu",
        ),
        (
            16,
            "QmTR3K7S71wERp9zUTRzCTmuMiojU9iYoCdoPGBWrcuGAQ",
            "bafkreicvt5gcpumfmkyrrsed54qy633ivtjy2pen33ngbev7bjnamu4dqu",
        ),
        (
            17,
            "QmRmuvoQD8xNGiQQnCbYAHUdpWN5MfzYZr2VWXERN3y5Gh",
            "bafybeiacxgwb4rzkpxxomydpclbmgmp4mjavgbuz5rjgoa6xeat7dybcme",
        ),
        (
            LEAVES,
            "QmdqP88oY6eRyAuUrT7jWjZ65it7trkVaY7i6KGmoR2dCw",
            "bafybeigebdfjginz57nee3lhlltrmmcxlexcvk5w2a4x7oulbd7cux6pey",
        ),
        (
            LEAVES + 1,
            "QmRzaPgKTrPUSqnVRv5YY7R8jKBgu6ZHc5jFHWkET7i2wW",
            "bafybeidezuamdrzwoanvivpuyibbdk4uezbcf3j2r5iirvtocrucwptseq",
        ),
        (
            LEAVES * 174,
            "QmNxXtyarEWwADTkVgbsJpfuFWLy4ow9rTQ1TL2DCVzkS6",
            "bafybeiffyfq754vxu2wuxcqfvijtwcfpyin6leojuhemwh5y55ebcwqjg4",
        ),
        (
            LEAVES * 174 + 1,
            "QmdGep7DJtQvUveVw2pKgSbjGH8D4D6Wv3cRvYntfwYcuu",
            "bafybeiaamgsmugk22jnpjfzu7fzbctqbbk2hxwirdogxa4mplzrreu3u4a",
        ),
    ] {
        assert_eq!(cids(&bytes(count), 16), [v0, v1], "{count} bytes");
    }
}

#[test]
fn it_does_not_matter_in_what_pieces_the_bytes_come() {
    struct Drip<'a>(&'a [u8]);
    impl Read for Drip<'_> {
        fn read(&mut self, to: &mut [u8]) -> io::Result<usize> {
            let length = to.len().min(7);
            self.0.read(&mut to[..length])
        }
    }
    let file = bytes(300_000);
    let dripped = address(&mut Drip(&file), Version::V1).unwrap();
    assert_eq!(dripped, address(&mut &*file, Version::V1).unwrap());
}

#[test]
fn a_written_address_reads_back_with_ipfs_before_it_or_not() {
    for count in [0, 17] {
        for cid in cids(&bytes(count), 16) {
            let read: Cid = cid.parse().unwrap();
            assert_eq!(read.to_string(), cid);
            assert_eq!(format!("ipfs://{cid}").parse(), Ok(read));
        }
    }
}

#[test]
fn what_is_no_address_is_refused_in_words() {
    const GOOD: &str = "bafkreifjjcie6lypi6ny7amxnfftagclbuxndqonfipmb64f2km2devei4";
    let why = |said: &str| said.parse::<Cid>().unwrap_err().to_string();
    let begins = "it begins with Qm, or with b in base 32, such as bafk…";
    for (said, told) in [
        ("", begins),
        ("../../etc/passwd", "only whole files are understood, no path below one"),
        ("ipfs://", begins),
        (&format!("{GOOD}/readme"), "only whole files are understood, no path below one"),
        (&GOOD.to_uppercase(), begins),
        (&GOOD[..58], "it is not of the right length"),
        (&format!("{GOOD}a"), "it is not of the right length"),
        (&GOOD.replace('j', "1"), "a letter in it is wrong"),
        (&GOOD.replace("ei4", "ei5"), "a letter in it is wrong"),
        ("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff5", "it is not of the right length"),
        ("QmT78zSuBmuS4z925WZfrqQ1qHaJ56DQaTfyMUF7F8ff50", "a letter in it is wrong"),
        ("Qmzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzzz", "its hash is no SHA-256"),
        (
            &GOOD.replace("bafk", "bafi"),
            "it names neither a file's bytes (raw) nor a file (dag-pb)",
        ),
        (&GOOD.replace("bafkrei", "bafkqei"), "its hash is no SHA-256"),
        (&GOOD.replace("baf", "bae"), "it names neither a file's bytes (raw) nor a file (dag-pb)"),
        (&GOOD.replace("baf", "bcf"), "there are versions 0 and 1"),
    ] {
        assert_eq!(why(said), format!("\"{said}\" is no content address: {told}"));
    }
    assert!(why(&"ä\n".repeat(10_000)).len() < 250, "a long one is cut");
}
