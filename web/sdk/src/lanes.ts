/** So many at a time: the others wait, and come in the order in which they asked. */
export class Lanes {
  private readonly waiting: Array<() => void> = [];

  constructor(private free: number) {}

  /** Calls `go` when there is room, which may be at once. Returns what gives the room, or the place in the line, back. */
  enter(go: () => void): () => void {
    if (this.free > 0) {
      this.free--;
      go();
    } else this.waiting.push(go);
    return () => {
      const place = this.waiting.indexOf(go);
      if (place >= 0) return void this.waiting.splice(place, 1);
      const next = this.waiting.shift();
      if (next) next();
      else this.free++;
    };
  }
}
