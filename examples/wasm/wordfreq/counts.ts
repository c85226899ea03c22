// Counts of words in bounded memory.

// A word with its count.
export class Entry {
  count: i64 = 1;

  constructor(
    readonly word: string,
    readonly hash: u32,
    // How many times the word may have been seen before it was counted.
    readonly before: i64,
  ) {}
}

// Counts words exactly as long as there are no more different ones than it may keep.
// Then it forgets the rarest, as in lossy counting (Manku and Motwani, 2002): a count
// is too small by no more than `error`.
export class Counts {
  private entries: Entry[] = [];
  // Places in entries by hash, from 1; 0 is none. Its length is a power of two.
  private places: StaticArray<u32> = new StaticArray<u32>(1 << 12);
  total: i64 = 0;
  error: i64 = 0;

  constructor(private most: i32) {}

  get distinct(): i32 {
    return this.entries.length;
  }

  // Counts a word of so many UTF-16 units at an address. Only of a new one a string is
  // made.
  add(from: usize, length: i32): void {
    this.total++;
    const size = <usize>length << 1;
    let hash: u32 = 2166136261;
    for (let i: usize = 0; i < size; i += 2) hash = (hash ^ load<u16>(from + i)) * 16777619;
    hash ^= hash >> 15;
    let mask = <u32>this.places.length - 1;
    let at = hash & mask;
    for (; unchecked(this.places[at]) != 0; at = (at + 1) & mask) {
      const e = unchecked(this.entries[unchecked(this.places[at]) - 1]);
      if (e.hash == hash && e.word.length == length && memory.compare(changetype<usize>(e.word), from, size) == 0) {
        e.count++;
        return;
      }
    }
    const word = String.UTF16.decodeUnsafe(from, size);
    if (this.entries.length >= this.most) this.forget();
    this.entries.push(new Entry(word, hash, this.error));
    if (this.entries.length * 2 > this.places.length) this.place(this.places.length * 2);
    else this.put(this.entries.length);
  }

  private put(place: u32): void {
    const mask = <u32>this.places.length - 1;
    let at = unchecked(this.entries[place - 1]).hash & mask;
    while (unchecked(this.places[at]) != 0) at = (at + 1) & mask;
    unchecked((this.places[at] = place));
  }

  private place(size: i32): void {
    this.places = new StaticArray<u32>(size);
    for (let i = 0; i < this.entries.length; i++) this.put(i + 1);
  }

  // Makes room for a tenth of what may be kept, at least.
  private forget(): void {
    while (this.entries.length > this.most - this.most / 10 - 1) {
      this.error++;
      let kept = 0;
      for (let i = 0; i < this.entries.length; i++) {
        const e = this.entries[i];
        if (e.count + e.before > this.error) this.entries[kept++] = e;
      }
      this.entries.length = kept;
    }
    this.place(this.places.length);
  }

  // All words, the most frequent first; of those that are as frequent, in the order of
  // their letters.
  sorted(): Entry[] {
    return this.entries
      .slice(0)
      .sort((a, b) => (a.count != b.count ? (a.count > b.count ? -1 : 1) : a.word < b.word ? -1 : a.word > b.word ? 1 : 0));
  }
}
