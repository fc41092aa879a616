;;; inhouse.el --- Ask about the repository you are in  -*- lexical-binding: t; -*-

;; Package-Requires: ((emacs "28.1"))
;; Keywords: tools

;;; Commentary:

;; A connection of its own to `inhouse lsp', through the jsonrpc library that Eglot is built
;; on: Eglot has one server for a buffer, and that stays your language's.

;;; Code:

(require 'jsonrpc)
(require 'url-util)
(require 'seq)
(require 'subr-x)

(defgroup inhouse nil "Ask about the repository you are in." :group 'tools)

(defcustom inhouse-command '("inhouse" "lsp")
  "What starts the language server." :type '(repeat string))

(defvar inhouse--connections (make-hash-table :test 'equal) "Connections by root.")
(defvar inhouse--answers (make-hash-table :test 'equal) "Buffers answered in, by token.")
(defvar inhouse--asked 0 "Number of questions so far.")
(defvar inhouse-answered-hook nil "Run in the buffer of an answer, review or change at its end.")

(defvar-local inhouse--connection nil)
(defvar-local inhouse--token nil)

(defclass inhouse-connection (jsonrpc-process-connection)
  ((diagnostics :initform (make-hash-table :test 'equal) :accessor inhouse--diagnostics))
  "One language server of one repository; what it found by URI.")

(defun inhouse--root ()
  "The root of the repository that the current buffer is in."
  (file-truename (or (locate-dominating-file default-directory ".git")
                     (user-error "inhouse: %s is not inside a git repository" default-directory))))

(defun inhouse--connection (root)
  "The running connection of ROOT; starts one when there is none."
  (let ((known (gethash root inhouse--connections)))
    (if (and known (jsonrpc-running-p known)) known
      (puthash root (inhouse--connect root) inhouse--connections))))

(defun inhouse--connect (root)
  "Start the language server of ROOT."
  (unless (executable-find (car inhouse-command))
    (user-error "inhouse: there is no program `%s'; install inhouse or set `inhouse-command'" (car inhouse-command)))
  (let* ((default-directory root)
         (start (lambda ()
                  (make-process :name "inhouse" :command inhouse-command :coding 'utf-8-emacs-unix :noquery t
                                :connection-type 'pipe :stderr (get-buffer-create "*inhouse stderr*"))))
         (connection (make-instance 'inhouse-connection :name "inhouse" :process start
                                    :notification-dispatcher #'inhouse--notified
                                    :request-dispatcher #'inhouse--requested)))
    (jsonrpc-request connection :initialize
                     (list :processId (emacs-pid) :rootUri (inhouse--uri root)
                           :capabilities (list :window (list :workDoneProgress :json-false)
                                               :workspace (list :applyEdit t)
                                               ;; A character is a code point, as in a buffer.
                                               :general (list :positionEncodings ["utf-32"]))))
    (jsonrpc-notify connection :initialized (make-hash-table))
    connection))

(defun inhouse--notified (connection method params)
  "Take what CONNECTION's server tells: METHOD with PARAMS."
  (pcase method
    ('$/progress
     (when-let ((buffer (gethash (plist-get params :token) inhouse--answers))
                (text (plist-get (plist-get params :value) :text)))
       (inhouse--append buffer text)))
    ('textDocument/publishDiagnostics
     (puthash (plist-get params :uri) (plist-get params :diagnostics) (inhouse--diagnostics connection)))
    ('window/showMessage (message "%s" (plist-get params :message)))))

(defun inhouse--requested (_connection method params)
  "Answer METHOD with PARAMS; `workspace/applyEdit' is the server's only request."
  (when (eq method 'workspace/applyEdit)
    (cl-loop for (uri edits) on (plist-get (plist-get params :edit) :changes) by #'cddr
             do (inhouse--edit (inhouse--file (substring (symbol-name uri) 1)) edits))
    (list :applied t)))

(defun inhouse--edit (file edits)
  "Make EDITS in the buffer that visits FILE, the last first; they do not overlap."
  (with-current-buffer (find-file-noselect file)
    (save-restriction
      (widen)
      (cl-loop for (start end text)
               in (sort (seq-map (lambda (edit)
                                   (let ((range (plist-get edit :range)))
                                     (list (inhouse--position (plist-get range :start))
                                           (inhouse--position (plist-get range :end))
                                           (plist-get edit :newText))))
                                 edits)
                        (lambda (one other) (> (car one) (car other))))
               do (save-excursion (goto-char start) (delete-region start end) (insert text))))))

(defun inhouse--position (place)
  "Where PLACE, a position of the protocol, is in the current buffer."
  (save-excursion
    (goto-char (point-min))
    (forward-line (plist-get place :line))
    (min (line-end-position) (+ (point) (plist-get place :character)))))

(defun inhouse--uri (file)
  "The address of FILE."
  (concat "file://" (url-hexify-string (encode-coding-string (directory-file-name file) 'utf-8)
                                       url-path-allowed-chars)))

(defun inhouse--file (uri)
  "The file that URI names."
  (decode-coding-string (url-unhex-string (string-remove-prefix "file://" uri)) 'utf-8))

(defun inhouse--lend (connection root)
  "Lend CONNECTION's server the unsaved buffers below ROOT; returns what ends it."
  (let (uris)
    (dolist (buffer (buffer-list))
      (with-current-buffer buffer
        (when (and (buffer-modified-p) buffer-file-name (string-prefix-p root (file-truename buffer-file-name)))
          (push (inhouse--uri (file-truename buffer-file-name)) uris)
          (jsonrpc-notify connection :textDocument/didOpen
                          (list :textDocument (list :uri (car uris) :languageId "plaintext" :version 0
                                                    :text (save-restriction (widen) (buffer-string))))))))
    (lambda ()
      (when (jsonrpc-running-p connection)
        (dolist (uri uris)
          (jsonrpc-notify connection :textDocument/didClose (list :textDocument (list :uri uri))))))))

(define-derived-mode inhouse-answer-mode special-mode "inhouse"
  "An answer with the places that it rests on."
  (setq-local mode-line-process '(:eval (if inhouse--token " answering" "")))
  (visual-line-mode))
(define-key inhouse-answer-mode-map (kbd "C-c C-k") #'inhouse-cancel)
(define-key inhouse-answer-mode-map (kbd "TAB") #'forward-button)

;;;###autoload
(defun inhouse-ask (question &optional first last)
  "Ask QUESTION about this repository, or about lines FIRST to LAST of this buffer."
  (interactive "sAsk about this repository: ")
  (when (string-blank-p question)
    (user-error "inhouse: the question is empty"))
  (let* ((root (inhouse--root))
         (connection (inhouse--connection root))
         (token (format "inhouse-%d" (cl-incf inhouse--asked)))
         (about (and first (inhouse--lines first last)))
         (answer (inhouse--buffer (format "*inhouse answer %d*" inhouse--asked) root (concat "# " question "\n\n")))
         (give-back (inhouse--lend connection root)))
    (puthash token answer inhouse--answers)
    (with-current-buffer answer
      (setq inhouse--connection connection inhouse--token token))
    (jsonrpc-async-request
     connection :inhouse/ask
     (append (list :question question :partialResultToken token
                   :workDoneToken (concat token "-work"))
             about)
     :timeout nil
     :success-fn (lambda (result)
                   (inhouse--finish answer result)
                   (inhouse--ended answer give-back))
     :error-fn (lambda (problem)
                 (inhouse--append answer (format "\n\n%s" (plist-get problem :message)))
                 (inhouse--ended answer give-back)))
    answer))

(defun inhouse--lines (first last)
  "Lines FIRST to LAST of this buffer, as requests name them."
  (list :textDocument (list :uri (inhouse--uri (file-truename buffer-file-name)))
        :range (list :start (list :line (1- first) :character 0) :end (list :line last :character 0))))

(defun inhouse--region (start end)
  "The first and the last line from START to END of a buffer that visits a file."
  (unless buffer-file-name
    (user-error "inhouse: this buffer visits no file"))
  (let ((last (line-number-at-pos end t)))
    (when (and (> end start) (save-excursion (goto-char end) (bolp)))
      (setq last (1- last)))
    (list (line-number-at-pos start t) last)))

;;;###autoload
(defun inhouse-ask-region (question start end)
  "Ask QUESTION about the lines from START to END."
  (interactive (list (read-string "Ask about the region: ") (region-beginning) (region-end)))
  (apply #'inhouse-ask question (inhouse--region start end)))

;;;###autoload
(defun inhouse-change-region (instruction start end)
  "Have the model change the lines from START to END as INSTRUCTION says.
The change is made when it applies and parses; else the server says why not."
  (interactive (list (read-string "Change the region: ") (region-beginning) (region-end)))
  (let* ((about (apply #'inhouse--lines (inhouse--region start end)))
         (buffer (current-buffer))
         (root (inhouse--root))
         (connection (inhouse--connection root))
         (give-back (inhouse--lend connection root))
         (ended (lambda (said)
                  (funcall give-back)
                  (when said (message "inhouse: %s" said))
                  (when (buffer-live-p buffer)
                    (with-current-buffer buffer (run-hooks 'inhouse-answered-hook))))))
    (jsonrpc-async-request
     connection :workspace/executeCommand
     (list :command "inhouse.change" :arguments (vector (append (list :instruction instruction) about)))
     :timeout nil
     :success-fn (lambda (result) (funcall ended (plist-get result :reason)))
     :error-fn (lambda (problem) (funcall ended (plist-get problem :message))))
    buffer))

(defun inhouse-cancel ()
  "Stop the answer in this buffer; what was said so far stays."
  (interactive)
  (unless inhouse--token
    (user-error "inhouse: nothing is being answered here"))
  (jsonrpc-notify inhouse--connection :window/workDoneProgress/cancel (list :token (concat inhouse--token "-work"))))

(defun inhouse--ended (answer give-back)
  "Forget ANSWER; GIVE-BACK ends the lending."
  (funcall give-back)
  (maphash (lambda (token buffer) (when (eq buffer answer) (remhash token inhouse--answers)))
           inhouse--answers)
  (when (buffer-live-p answer)
    (with-current-buffer answer
      (setq inhouse--token nil)
      (run-hooks 'inhouse-answered-hook)))
  (force-mode-line-update t))

(defun inhouse--finish (answer result)
  "Add to ANSWER the sources, notes and provenance of RESULT."
  (inhouse--append answer (plist-get result :answer))
  (when (equal (plist-get result :reason) "cancelled")
    (inhouse--append answer "\n\nStopped."))
  (unless (seq-empty-p (plist-get result :citations))
    (inhouse--append answer "\n\n## Sources\n"))
  (seq-doseq (place (plist-get result :citations))
    (inhouse--append answer "\n- ")
    (inhouse--append-place answer place ""))
  (seq-doseq (note (plist-get result :notes))
    (inhouse--append answer (format "\n\n%s" note)))
  (inhouse--append answer (format "\n\n---\n%s\n" (plist-get result :provenance_line))))

;;;###autoload
(defun inhouse-review ()
  "Review what is not on the main branch yet; each finding is a button."
  (interactive)
  (let* ((root (inhouse--root))
         (connection (inhouse--connection root))
         (buffer (inhouse--buffer "*inhouse review*" root "")))
    (jsonrpc-async-request
     connection :workspace/executeCommand (list :command "inhouse.review")
     :timeout nil
     :success-fn (lambda (result) (inhouse--show-review buffer connection (plist-get result :summary)))
     :error-fn (lambda (problem) (inhouse--append buffer (plist-get problem :message))))
    buffer))

(defun inhouse--show-review (buffer connection summary)
  "Write SUMMARY and the findings that CONNECTION's server published into BUFFER."
  (inhouse--append buffer (format "%s\n" summary))
  (maphash (lambda (uri found)
             (seq-doseq (each found)
               (inhouse--append buffer "\n- ")
               (inhouse--append-place buffer (list :uri uri :range (plist-get each :range))
                                      (format " %s: %s" (plist-get each :code) (plist-get each :message)))))
           (inhouse--diagnostics connection))
  (when (buffer-live-p buffer)
    (with-current-buffer buffer (run-hooks 'inhouse-answered-hook))))

(defun inhouse--buffer (name root title)
  "An empty buffer NAME for ROOT that begins with TITLE, shown in another window."
  (let ((buffer (get-buffer-create name)))
    (with-current-buffer buffer
      (inhouse-answer-mode)
      (setq default-directory root)
      (let ((inhibit-read-only t)) (erase-buffer) (insert title)))
    (display-buffer buffer)
    buffer))

(defun inhouse--append (buffer text)
  "Add TEXT at the end of BUFFER; whoever reads is not moved."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (let ((inhibit-read-only t))
        (save-excursion (goto-char (point-max)) (insert text))))))

(defun inhouse--append-place (buffer place rest)
  "Add a button that opens PLACE, a location of the protocol, and REST to BUFFER."
  (when (buffer-live-p buffer)
    (with-current-buffer buffer
      (let* ((inhibit-read-only t)
             (file (inhouse--file (plist-get place :uri)))
             (line (1+ (plist-get (plist-get (plist-get place :range) :start) :line)))
             (shown (replace-regexp-in-string "[[:cntrl:]]" "?" (file-relative-name file))))
        (save-excursion
          (goto-char (point-max))
          (insert-text-button (format "%s:%d" shown line) 'follow-link t
                              'action (lambda (_)
                                        (find-file-other-window file)
                                        (goto-char (point-min))
                                        (forward-line (1- line))))
          (insert rest))))))

(defun inhouse-mode-line ()
  "How many answers are under way, for `global-mode-string'."
  (let ((count (hash-table-count inhouse--answers))) (if (zerop count) "" (format " inhouse:%d" count))))

(provide 'inhouse)
;;; inhouse.el ends here
