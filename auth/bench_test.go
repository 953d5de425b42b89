package auth

import "testing"

func BenchmarkVerify(b *testing.B) {
	for name, open := range map[string]func(testing.TB) Store{
		"file":  func(t testing.TB) Store { s, _ := newFileStore(t); return s },
		"redis": func(t testing.TB) Store { return newRedisStore(t) },
	} {
		store := open(b)
		for kind, change := range map[string]func(*Options){
			"cached": func(*Options) {},
			"stored": func(o *Options) { o.Settings.Session.VerifyCache = 0 },
		} {
			e := newEnv(b, store, change)
			token, _ := e.mustLogin("ann")
			b.Run(name+"/"+kind, func(b *testing.B) {
				b.ReportAllocs()
				b.RunParallel(func(pb *testing.PB) {
					for pb.Next() {
						if _, err := e.Verify(b.Context(), token); err != nil {
							b.Error(err)
							return
						}
					}
				})
			})
		}
	}
}

// A remembered token costs no memory: Verify runs for every request.
func TestCachedVerifyAllocatesNothing(t *testing.T) {
	e := newEnv(t, first(newFileStore(t)))
	token, _ := e.mustLogin("ann")
	ctx := t.Context()
	if n := testing.AllocsPerRun(1000, func() {
		if _, err := e.Verify(ctx, token); err != nil {
			t.Error(err)
		}
	}); n != 0 {
		t.Errorf("a cached Verify allocates %v times", n)
	}
}
