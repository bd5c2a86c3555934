package api

// GetStatus is the HTTP status of the answer.
func (e *Error) GetStatus() int { return e.Status }
