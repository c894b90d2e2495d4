// What the player needs of whatever shows a channel: a terminal, plain text or a file table.

import type { Happening, Keyframe } from "./api";

export interface View {
  readonly el: HTMLElement;
  attach(): void;
  // reset forgets everything shown; a keyframe, if there is one, is the new beginning.
  reset(k: Keyframe | undefined): Promise<void>;
  apply(e: Happening): void;
  // flush shows what was applied; settled also waits until it is on the page.
  flush(): void;
  settled(): Promise<void>;
  text(): string;
  dispose(): void;
}
