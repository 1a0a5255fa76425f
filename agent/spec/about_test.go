package spec

import "testing"

func TestBytesForAPerson(t *testing.T) {
	for b, want := range map[Bytes]string{
		0: "0B", 1023: "1023B", 1024: "1KiB", 24683620 << 10: "23.5GiB", 512 << 20: "512MiB", 3 << 50: "3072TiB",
	} {
		if got := b.About(); got != want {
			t.Errorf("%d is %q, want %q", int64(b), got, want)
		}
	}
}
