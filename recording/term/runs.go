package term

// Run is neighbouring characters of a row that look the same.
type Run struct {
	Text   string
	Cells  int    // columns it takes
	FG, BG uint32 // 0: the terminal's own; 1 to 256: a colour of the palette, counted from 1; from DirectRGB on: that and 0xRRGGBB
	Flip   bool   // foreground and background changed places
	Bold   bool
}

// DirectRGB is what a direct colour of a Run has in front.
const DirectRGB = 1 << 24

func (c colour) public() uint32 {
	n := uint32(c) & 0xffffff
	switch {
	case c&direct != 0:
		return DirectRGB | n
	case c&indexed != 0:
		return n + 1
	}
	return 0
}

// Runs is row y from column 0 to before column cols, for pictures: what is hidden is not there, and blanks at the end
// that nothing shows in are left out.
func (t *Term) Runs(y, cols int) []Run {
	var out []Run
	var of pen
	row := t.cur.rows[y]
	end := 0
	for x, c := range row[:min(cols, len(row))] {
		if c.r > ' ' || c.bg != 0 || c.attr&(reverse|underline|strike) != 0 {
			end = x + 1
		}
	}
	var text []byte
	cells := 0
	close := func() {
		if cells > 0 {
			out = append(out, Run{string(text), cells, of.fg.public(), of.bg.public(), of.attr&reverse != 0, of.attr&bold != 0})
		}
		text, cells = text[:0], 0
	}
	for _, c := range row[:end] {
		if c.width == 0 {
			continue
		}
		look := pen{c.fg, c.bg, c.attr & (reverse | bold)}
		if look != of {
			close()
			of = look
		}
		if c.attr&hidden != 0 {
			c.r = 0
		}
		text = appendCell(text, c)
		cells += int(c.width)
	}
	close()
	return out
}
