;;; inhouse-tests.el --- The Emacs client against a real server  -*- lexical-binding: t; -*-

;; Run by test_emacs.py in a repository whose owner runs; those tagged `scripted', where the model is a script.

(require 'ert)
(require 'inhouse)

(defun inhouse-tests-wait (what condition)
  "Wait until CONDITION, which is WHAT a failure names, holds."
  (let ((deadline (+ (float-time) 120)))
    (while (not (funcall condition))
      (should (or (< (float-time) deadline) (not what)))
      (accept-process-output nil 0.05))))

(defun inhouse-tests-ended (start)
  "Call START, which returns a buffer; its text once it has ended."
  (let* ((ended nil)
         (inhouse-answered-hook (list (lambda () (push (current-buffer) ended))))
         (buffer (funcall start)))
    (inhouse-tests-wait "the end" (lambda () (memq buffer ended)))
    (with-current-buffer buffer (buffer-string))))

(ert-deftest inhouse-an-answer-streams-and-its-sources-open ()
  (find-file "README.md")
  (let ((said (inhouse-tests-ended (lambda () (inhouse-ask "How is the tax added?")))))
    (should (string-prefix-p "# How is the tax added?" said))
    (should (string-match-p "Answered by SmolLM2-135M-Instruct with no adapter, index at [0-9a-f]+" said))
    (should (equal "" (inhouse-mode-line)))
    (with-current-buffer (format "*inhouse answer %d*" inhouse--asked)
      (goto-char (point-min))
      (search-forward "src files/größe.py:")
      (push-button (match-beginning 0)))
    (with-current-buffer (window-buffer)
      (should (string-suffix-p "src files/größe.py" buffer-file-name)))))

(ert-deftest inhouse-unsaved-lines-are-what-is-asked-about ()
  (find-file "draft.py")                ; it is nowhere on disk: only this buffer holds it
  (insert "import os\n\ndef shipping_to_the_moon():\n    return 1\n")
  (search-backward "def")
  (let ((said (inhouse-tests-ended
               (lambda () (inhouse-ask-region "What is this for?" (point) (point-max))))))
    (set-buffer-modified-p nil)
    (should-not (string-match-p "so it was not read" said))
    (should (string-match-p "Answered by" said))))

(ert-deftest inhouse-an-answer-can-be-stopped ()
  (find-file "README.md")
  (let ((said (inhouse-tests-ended
               (lambda ()
                 (let ((answer (inhouse-ask "Write a very long story about a shop.")))
                   (inhouse-tests-wait "the first words"
                                       (lambda () (> (buffer-size answer) 60)))
                   (should (equal " inhouse:1" (inhouse-mode-line)))
                   (with-current-buffer answer (call-interactively (key-binding (kbd "C-c C-k"))))
                   answer)))))
    (should (string-match-p "Stopped\\." said))))

(ert-deftest inhouse-a-review-lists-what-it-finds ()
  (find-file "README.md")
  (let ((said (inhouse-tests-ended #'inhouse-review)))
    (should (string-match-p "- new\\.py:2 import-spelling: " said))
    (with-current-buffer "*inhouse review*"
      (goto-char (point-min))
      (push-button (next-button (point))))
    (with-current-buffer (window-buffer)
      (should (equal "new.py" (file-name-nondirectory buffer-file-name)))
      (should (= 2 (line-number-at-pos))))))

(ert-deftest inhouse-a-change-is-made-where-it-parses ()
  :tags '(scripted)
  (find-file "till.py")
  (let ((change (lambda (first last)
                  (inhouse-tests-ended
                   (lambda ()
                     (inhouse-change-region "Make it larger."
                                            (progn (goto-char (point-min)) (line-beginning-position first))
                                            (line-beginning-position (1+ last))))))))
    (should (equal (funcall change 5 6)
                   "def first():\n    return 1\n\n\ndef second():\n    return 'größer 🛒'\n"))
    (let ((before (buffer-string)))     ; unsaved by now
      (should (equal (funcall change 5 6) before))
      (should (string-match-p "it changes nothing" (with-current-buffer "*Messages*" (buffer-string)))))
    (set-buffer-modified-p nil)))

(ert-deftest inhouse-mistakes-are-answered-plainly ()
  (let ((default-directory "/"))
    (should-error (inhouse-ask "Anything?") :type 'user-error))
  (should-error (inhouse-ask "  ") :type 'user-error))
