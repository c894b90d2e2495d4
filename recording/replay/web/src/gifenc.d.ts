declare module "gifenc" {
  export type Palette = number[][];
  export function quantize(rgba: Uint8ClampedArray | Uint8Array, colours: number, o?: { format?: "rgb565" | "rgb444" }): Palette;
  export function applyPalette(rgba: Uint8ClampedArray | Uint8Array, palette: Palette, format?: "rgb565" | "rgb444"): Uint8Array;
  export function GIFEncoder(o?: { initialCapacity?: number }): {
    writeFrame(index: Uint8Array, width: number, height: number, o: { palette?: Palette; transparent?: boolean; transparentIndex?: number; delay?: number; repeat?: number; dispose?: number }): void;
    finish(): void;
    bytesView(): Uint8Array<ArrayBuffer>;
  };
}
