package cli

import (
	"fmt"
	"slices"
	"strings"
	"sync"
	"time"

	"berth/api"
)

// redrawEvery bounds how often the block is drawn; the clock in it moves on
// even when nothing is heard.
const redrawEvery = 100 * time.Millisecond

// layerBars is how many layers of an image are drawn at most.
const layerBars = 4

// liveProgress draws a block of lines at the bottom of the screen over and
// over. Messages and warnings scroll away above it.
type liveProgress struct {
	screen Screen
	stop   chan struct{}
	done   chan struct{}
	once   sync.Once

	mu    sync.Mutex
	board board
	notes []string // not yet printed
	drawn int      // lines of the block on the screen
	last  string   // the block on the screen
	dirty bool
}

func newLiveProgress(s Screen) *liveProgress {
	p := &liveProgress{screen: s, stop: make(chan struct{}), done: make(chan struct{})}
	go p.redraw()
	return p
}

func (p *liveProgress) redraw() {
	defer close(p.done)
	ticker := time.NewTicker(redrawEvery)
	defer ticker.Stop()
	for {
		select {
		case <-p.stop:
			return
		case now := <-ticker.C:
			p.mu.Lock()
			if p.dirty || p.busy() {
				p.draw(now)
			}
			p.mu.Unlock()
		}
	}
}

// busy says that the picture changes with time alone.
func (p *liveProgress) busy() bool {
	for _, s := range p.board.services {
		if !s.settled() {
			return true
		}
	}
	return false
}

func (p *liveProgress) Handle(news api.Progress) {
	p.mu.Lock()
	defer p.mu.Unlock()
	now := time.Now()
	p.dirty = true
	switch {
	case news.Applied != nil:
		p.board.title = title(*news.Applied)
	case news.Service != nil:
		p.board.service(*news.Service, now)
	case news.Pull != nil:
		p.board.pull(*news.Pull, now)
	case news.Build != nil, news.Built != nil:
		p.notes = append(p.notes, buildLines(news)...)
	case news.Warning != "":
		p.notes = append(p.notes, p.screen.Paint(Caution, "warning: "+Escape(news.Warning)))
	case news.Message != "":
		p.notes = append(p.notes, Escape(news.Message))
	}
}

func (p *liveProgress) Close() {
	p.once.Do(func() {
		close(p.stop)
		<-p.done
		p.mu.Lock()
		defer p.mu.Unlock()
		p.draw(time.Now())
	})
}

// draw replaces the block on the screen in one write, so that no half-drawn
// state is seen. A block that has not changed is left alone.
func (p *liveProgress) draw(now time.Time) {
	p.dirty = false
	cols, rows := p.screen.Size()
	lines := p.lines(now, cols, max(rows-1, 4))
	block := strings.Join(lines, "\n")
	if block == p.last && len(p.notes) == 0 {
		return
	}
	var b strings.Builder
	if p.drawn > 0 {
		fmt.Fprintf(&b, "\x1b[%dA\r\x1b[J", p.drawn)
	}
	for _, note := range p.notes {
		b.WriteString(note + "\n")
	}
	for _, line := range lines {
		b.WriteString(line + "\n")
	}
	p.notes, p.drawn, p.last = nil, len(lines), block
	fmt.Fprint(p.screen, b.String())
}

// lines is the block for a screen of that size. When not everything fits,
// what is settled is left out first.
func (p *liveProgress) lines(now time.Time, cols, rows int) []string {
	var head, settled, moving []string
	if p.board.title != "" {
		head = append(head, p.screen.Paint(Bold, cut(p.board.title, cols)))
	}
	columns, counts := 0, 0
	for _, s := range p.board.services {
		columns = max(columns, width(Escape(s.Service)))
		if s.counting() {
			counts = max(counts, width(s.counts()))
		}
	}
	for _, pull := range p.board.pulls {
		line := "  " + cut(Escape(pull.reference)+"  "+pull.text(), cols-2)
		if pull.over() {
			settled = append(settled, p.screen.Paint(Dim, line))
			continue
		}
		moving = append(moving, line)
		for i, layer := range pull.active() {
			if i < layerBars {
				moving = append(moving, p.screen.Paint(Dim, cut(layerBar(*layer), cols)))
			}
		}
	}
	var body []string
	for _, s := range p.board.services {
		text, style := s.line(now, counts)
		name := "  " + pad(Escape(s.Service), columns) + "  "
		body = append(body, name+p.screen.Paint(style, cut(text, cols-width(name))))
	}
	lines := slices.Concat(head, settled, moving, body)
	if len(lines) <= rows {
		return lines
	}
	return p.crowded(head, moving, body, rows)
}

// crowded is lines for a screen that is too low: the head, what moves, and
// one line that counts the rest.
func (p *liveProgress) crowded(head, moving, body []string, rows int) []string {
	lines := slices.Concat(head, moving)
	hidden := 0
	for i, s := range p.board.services {
		if s.settled() && s.Phase != api.PhaseFailed || len(lines) >= rows-1 {
			hidden++
			continue
		}
		lines = append(lines, body[i])
	}
	if len(lines) > rows-1 {
		lines = lines[:rows-1]
	}
	return append(lines, p.screen.Paint(Dim, "  … and "+plural(hidden, "more service")))
}

// layerBar draws how much of a layer is here.
func layerBar(l api.PullProgress) string {
	const columns = 24
	if l.Status == "unpacking" || l.Total <= 0 {
		return fmt.Sprintf("    %-12s %s", cut(Escape(l.Layer), 12), Escape(l.Status))
	}
	filled := int(min(l.Current, l.Total) * columns / l.Total)
	bar := strings.Repeat("━", filled) + strings.Repeat("╌", columns-filled)
	return fmt.Sprintf("    %-12s %s %s / %s", cut(Escape(l.Layer), 12), bar, size(l.Current), size(l.Total))
}
