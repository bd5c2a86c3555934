package runtime

import (
	"testing"

	"berth/runtime/initproc"
	"berth/testbed"
)

func TestMain(m *testing.M) {
	if initproc.Called() {
		initproc.Main()
	}
	testbed.Main(m)
}
