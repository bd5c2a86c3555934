package runtime

import (
	"testing"

	"berth/testbed"
)

func TestMain(m *testing.M) { testbed.Main(m) }
