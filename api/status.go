package api

// GetStatus is the HTTP status of the answer.
func (e *Error) GetStatus() int { return e.Status }

// ContentType makes an HTTP answer that holds e a problem (RFC 9457, section 3).
func (e *Error) ContentType(string) string { return "application/problem+json" }
