// Command program passes one crash point three times. Its last deferred
// function would tell if it ran.
package main

import "berth/crash"

func main() {
	defer println("deferred")
	for range 3 {
		crash.At("here.passed")
		println("passed")
	}
}
