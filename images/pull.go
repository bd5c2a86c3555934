package images

import (
	"context"
	"errors"
	"fmt"
	"os"
	"time"

	"github.com/distribution/reference"
	v1 "github.com/google/go-containerregistry/pkg/v1"
	"golang.org/x/sync/errgroup"
)

// Pull makes ref present as o.Policy asks and returns it. It blocks until all
// layers are unpacked and durable. Pulls of one image share requests and
// layers; each may be cancelled without harm to the others. A failure leaves
// the reference as it was and keeps what was downloaded for the next try.
func (s *Store) Pull(ctx context.Context, ref string, o PullOptions) (Image, error) {
	named, err := parse(ref)
	if err != nil {
		return Image{}, err
	}
	img, err := s.pull(ctx, named, o)
	if err != nil {
		return Image{}, fmt.Errorf("pull %s: %w", reference.FamiliarString(named), err)
	}
	return img, nil
}

func (s *Store) pull(ctx context.Context, named reference.Named, o PullOptions) (Image, error) {
	policy, age, err := o.Policy.parse()
	if err != nil {
		return Image{}, err
	}
	want, err := parsePlatform(o.Platform)
	if err != nil {
		return Image{}, err
	}
	report := reporter{named.String(), o.Progress}
	have, row := s.present(named, want)
	switch {
	case have != nil && (policy != PullAlways || wantedDigest(named) != "" || age > 0 && time.Since(row.Pulled) < age):
		report.image(statusExists)
		return *have, nil
	case policy == PullNever:
		return Image{}, fmt.Errorf("%w: its pull policy is never; load it, build it, or pull it by hand", ErrNotFound)
	}
	known := ""
	if have != nil && row.Platform == o.Platform {
		known = row.Source
	}
	f, err := s.ask(ctx, named, want, o, known)
	if err != nil {
		return Image{}, err
	}
	r := &refRecord{Digest: f.document.digest, Source: f.source, Platform: o.Platform, Pulled: time.Now().UTC()}
	if f.unchanged {
		r.Digest = have.Digest
		err = s.settle(change{refs: map[string]*refRecord{named.String(): r}})
		report.image(statusExists)
		return *have, err
	}
	return s.obtain(ctx, named.String(), f, r, report)
}

// present finds what the reference means here, if it is whole and fits want.
func (s *Store) present(named reference.Named, want v1.Platform) (*Image, refRecord) {
	s.mu.RLock()
	defer s.mu.RUnlock()
	rec := s.lookup(named.String(), wantedDigest(named))
	if rec == nil || !s.whole(rec) {
		return nil, refRecord{}
	}
	p, err := v1.ParsePlatform(rec.Platform)
	if err != nil || p.Architecture != "" && fits(*p, want) == 0 {
		return nil, refRecord{}
	}
	img := s.withNames(rec)
	if row := s.refs[named.String()]; row != nil {
		return &img, *row
	}
	return &img, refRecord{}
}

// whole: all layers are there. If somebody deleted one by hand, the next pull
// brings it back.
func (s *Store) whole(rec *imageRecord) bool {
	for _, k := range rec.Keys {
		l := s.layers[k]
		if l == nil {
			return false
		}
		if _, err := os.Lstat(s.layerDir(l)); err != nil {
			return false
		}
	}
	return true
}

// ask finds out what the reference means at the registry. Those who ask the
// same with the same credentials share the answer: ten services of one image
// are one pull to a registry that counts.
func (s *Store) ask(ctx context.Context, named reference.Named, want v1.Platform, o PullOptions, known string) (*found, error) {
	who := ""
	if o.Auth != nil {
		user, password, ok := o.Auth(canonicalHost(reference.Domain(named)))
		who = digestOf([]byte(fmt.Sprintf("%t\x00%s\x00%s", ok, user, password)))
	}
	key := named.String() + " " + want.String() + " " + known + " " + who
	return await(ctx, &s.questions, key, nil, func(ctx context.Context, _ *progress) (*found, error) {
		return s.route(named, o.Auth).find(ctx, want, o.Platform != "", known)
	})
}

// await joins the job of key and waits for it or for ctx. tick, if any, is
// called while it waits.
func await[V any](ctx context.Context, f *flight[V], key string, tick func(*progress), run func(context.Context, *progress) (V, error)) (V, error) {
	ticker := time.NewTicker(progressEvery)
	defer ticker.Stop()
	var none V
	for {
		if err := ctx.Err(); err != nil {
			return none, err
		}
		j := f.join(key, run)
		for waiting := true; waiting; {
			select {
			case <-j.done:
				waiting = false
			case <-ctx.Done():
				f.leave(key, j)
				return none, ctx.Err()
			case <-ticker.C:
				if tick != nil {
					tick(j.progress)
				}
			}
		}
		f.leave(key, j)
		if errors.Is(j.err, context.Canceled) && ctx.Err() == nil {
			continue // whoever started it gave up just now
		}
		return j.value, j.err
	}
}

// obtain brings all layers of f, then records the image and its reference.
func (s *Store) obtain(ctx context.Context, ref string, f *found, r *refRecord, report reporter) (Image, error) {
	blobs := make([]blob, len(f.manifest.Layers))
	for i, l := range f.manifest.Layers {
		blobs[i] = blob{l.Digest.String(), l.Size, string(l.MediaType)}
	}
	rec, release, err := s.assemble(ctx, f.document, f.config, f.rawConfig, blobs, f.route.open, report)
	defer release()
	if err != nil {
		// What did arrive stays for the next try; the first error counts.
		return Image{}, errors.Join(err, s.settle(change{}))
	}
	c := change{
		images: map[string]*imageRecord{rec.Digest: rec},
		refs:   map[string]*refRecord{ref: r},
	}
	if err := s.settle(c); err != nil {
		return Image{}, err
	}
	report.image(statusDone)
	s.mu.RLock()
	defer s.mu.RUnlock()
	return s.withNames(rec), nil
}

// assemble brings and unpacks the layers of one image, all at the same time,
// and makes its record. release, never nil, gives them up to collection: call
// it when the record is committed.
func (s *Store) assemble(ctx context.Context, d document, cf *v1.ConfigFile, raw []byte, blobs []blob, open opener, report reporter) (rec *imageRecord, release func(), err error) {
	diffIDs := cf.RootFS.DiffIDs
	chains := chainIDs(diffIDs)
	var names []string
	for i, b := range blobs {
		names = append(names, b.digest, diffIDs[i].String())
	}
	release = s.lease(names...)

	layers := make([]*fetched, len(blobs))
	g, gctx := errgroup.WithContext(ctx)
	for i, b := range blobs {
		if s.layerAt(diffIDs[i].String(), chains[i]) != "" {
			report.layer(b.digest, statusExists, b.size, b.size)
			continue
		}
		report.layer(b.digest, statusWaiting, 0, b.size)
		g.Go(func() (err error) {
			layers[i], err = s.await(gctx, b, diffIDs[i].String(), open, report)
			return err
		})
	}
	if err := g.Wait(); err != nil {
		return nil, release, err
	}
	rec = newRecord(d, cf, raw, blobs)
	for i := range blobs {
		key, err := s.settleLayer(ctx, layers[i], blobs[i], diffIDs[i].String(), chains[i], rec.Keys)
		if err != nil {
			return nil, release, err
		}
		rec.Keys = append(rec.Keys, key)
	}
	return rec, release, nil
}

func (s *Store) await(ctx context.Context, b blob, diffID string, open opener, report reporter) (*fetched, error) {
	last := Progress{}
	f, err := await(ctx, &s.layer, diffID, func(p *progress) {
		now := Progress{Status: p.status(), Current: p.current.Load()}
		if now != last {
			report.layer(b.digest, now.Status, now.Current, b.size)
			last = now
		}
	}, func(ctx context.Context, p *progress) (*fetched, error) {
		if key := s.layerAt(diffID, ""); key != "" { // since we looked
			return nil, nil
		}
		return s.fetch(ctx, b, diffID, open, p)
	})
	if err == nil {
		report.layer(b.digest, statusDone, b.size, b.size)
	}
	return f, err
}

// layerAt is the key of a layer at its place in a stack, "" if it is not here.
func (s *Store) layerAt(diffID, chain string) string {
	s.mu.RLock()
	defer s.mu.RUnlock()
	for _, key := range []string{diffID, "chain:" + chain} {
		if l := s.layers[key]; l != nil {
			if _, err := os.Lstat(s.layerDir(l)); err == nil {
				return key
			}
		}
	}
	return ""
}

func newRecord(d document, cf *v1.ConfigFile, raw []byte, blobs []blob) *imageRecord {
	rec := &imageRecord{
		Image: Image{
			Digest: d.digest, ID: digestOf(raw), Platform: configPlatform(cf).String(),
			Created: cf.Created.UTC(), Config: cf.Config, Size: int64(len(d.raw) + len(raw)),
		},
		Manifest: d.raw, MediaType: d.mediaType, RawConfig: raw,
	}
	for i, b := range blobs {
		rec.Size += b.size
		rec.Layers = append(rec.Layers, cf.RootFS.DiffIDs[i].String())
	}
	return rec
}
